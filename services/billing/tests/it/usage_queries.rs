//! Usage queries on large or unusual data: limits, anomalies, sharing, pagination and provisional totals.

use billing::BillingService;
use epoch::Timestamp;
use epoch_postgres::testkit::TestDatabase;
use rating::{
    calendar::{
        day::{days, zone},
        span::{Span, Window},
    },
    sharing::rule::SharingRule,
};
use service_host::service::Service;
use sqlx::PgPool;
use usage::{
    page::Page,
    queries::{
        groups::GroupBy,
        snapshot::Snapshot,
        usage::usage,
        usage_query::{MAX_ANOMALIES, UsageQuery},
    },
    read_error::ReadError,
    sharing::shared_files,
};
use uuid::Uuid;

use crate::support::DAY;

/// 2025-01-01T00:00:00Z.
pub(crate) const YEAR: i64 = 1_735_689_600_000;

/// Loads a year of 40 organizations with 80 files and 60 runs each through the SQL functions of the projections.
///
/// Returns one of the organizations.
pub(crate) async fn load_year(pool: &PgPool) -> Uuid {
    let load = "do $$
        declare
            organization uuid;
        begin
            for number in 1..40 loop
                organization := md5('organization ' || number)::uuid;
                perform metering_storage_add(array_agg(organization), array_agg(md5(number || ' file ' || n)::uuid),
                    array_agg(at), array_agg(delta), array_agg(at + 50))
                from (
                    select n, 1735689600000 + n * 390000000::bigint as at, 1000000 + n as delta from generate_series(1, 80) n
                    union all
                    select n, 1735689600000 + (n + 9) * 390000000::bigint, -1000000 - n
                    from generate_series(1, 80, 2) n
                ) changes;
                insert into runs (job_id, number, organization_id, user_id, started_at, ended_at, configuration_id,
                    machine_id, started_recorded_at, ended_recorded_at, machine_type_id)
                select md5(number || ' job ' || n)::uuid, 3, organization, md5('user ' || n % 5)::uuid,
                    1735689600000 + n * 520000000::bigint, 1735689600000 + n * 520000000::bigint + 3600000,
                    null, null, 1735689600000 + n * 520000000::bigint, 1735689600000 + n * 520000000::bigint + 3600000,
                    machine_type_id('default')
                from generate_series(1, 60) n;
                perform metering_run_sums_add(array_agg(organization), array_agg(s.scope::smallint), array_agg(s.subject),
                    array_agg(c.at), array_agg(c.delta))
                from runs r cross join lateral (values (r.started_at, 1::bigint), (r.ended_at, -1)) as c (at, delta)
                    cross join lateral (values (0::smallint, '00000000-0000-0000-0000-000000000000'::uuid),
                        (1, r.user_id), (4, r.machine_type_id)) as s (scope, subject)
                where r.organization_id = organization;
                insert into file_link_changes
                select organization, md5(number || ' file ' || n)::uuid, md5(number || ' job ' || n)::uuid, 1, 2,
                    1735689600000 + n * 390000000::bigint, true, 1735689600000 + n * 390000000::bigint
                from generate_series(1, 60) n;
            end loop;
        end
        $$";
    sqlx::raw_sql(load).execute(pool).await.unwrap();
    sqlx::raw_sql("vacuum analyze").execute(pool).await.unwrap();
    sqlx::query_scalar("select md5('organization 7')::uuid").fetch_one(pool).await.unwrap()
}

pub(crate) fn june(zone_name: &str) -> (Window, Vec<Span>) {
    let period = Span::new(Timestamp::from_millis(YEAR + 151 * DAY), Timestamp::from_millis(YEAR + 181 * DAY));
    let window = Window { period, as_of: Timestamp::from_millis(YEAR + 180 * DAY + 12_345) };
    let counted = window.counted();
    let days = days(period, &zone(zone_name).unwrap()).unwrap();
    (window, days.iter().map(|day| day.span.intersect(counted)).collect())
}

/// All other runs take an hour, so a bound on their length must not exclude this one.
#[tokio::test]
async fn long_run_is_listed_when_it_ends_in_the_period() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    let organization = load_year(&pool).await;
    let (window, spans) = june("UTC");
    let (start, job) = (window.period.start().as_millis(), Uuid::now_v7());
    let long = "insert into runs (job_id, number, organization_id, started_at, ended_at, started_recorded_at, ended_recorded_at, \
             machine_type_id) values ($1, 3, $2, $3, $4, $3, $4, machine_type_id('default'))";
    let run = sqlx::query(long).bind(job).bind(organization).bind(start - 50 * DAY).bind(start + 2 * DAY);
    run.execute(&pool).await.unwrap();
    let usage_query = UsageQuery { organization, window, known_at: None };
    let all = Page { after: None, limit: 200 };
    let usage = usage(&pool, usage_query, SharingRule::Split, &spans, all, all).await.unwrap();
    let listed = usage.jobs.items.iter().find(|listed| listed.job == job).map(|listed| listed.run_ms);
    assert_eq!(listed, Some(i128::from(2 * DAY)));
    assert!(usage.jobs.items.len() > 1, "other runs are listed, too");
    pool.close().await;
    database.drop().await;
}

/// More shared files than a query may read were deleted long before the period. One file changes after the period.
#[tokio::test]
async fn shares_cover_files_of_the_period_only() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    let organization = Uuid::now_v7();
    let load = "with gone as ( \
             select array_agg($1) as organizations, array_agg(md5('file ' || n)::uuid) as files, array_agg(at) as instants, \
                 array_agg(delta) as deltas \
             from generate_series(1, 20001) n \
                 cross join (values (1735689600000, 7::bigint), (1735689600000 + 86400000, -7)) as c (at, delta) \
         ), linked as ( \
             insert into file_link_changes \
             select $1, md5('file ' || n)::uuid, md5('job ' || n % 7)::uuid, 1, 2, 1735689600000, true, 1735689600000 \
             from generate_series(1, 20001) n \
         ) select metering_storage_add(organizations, files, instants, deltas, instants) from gone";
    sqlx::query(load).bind(organization).execute(&pool).await.unwrap();
    let shared_file = "with linked as ( \
             insert into file_link_changes values ($1, $2, $3, 1, 2, 1735689600000, true, 1735689600000) \
         ) select metering_storage_add(array[$1, $1], array[$2, $2], array[1735689600000, 1752969600000], \
             array[10::bigint, 5], array[1735689600000, 1752969600000])";
    let (file, job) = (Uuid::now_v7(), Uuid::now_v7());
    sqlx::query(shared_file).bind(organization).bind(file).bind(job).execute(&pool).await.unwrap();
    let (window, spans) = june("UTC");
    let usage_query = UsageQuery { organization, window, known_at: None };
    let mut snapshot = Snapshot::of(&pool, usage_query).await.unwrap();
    let totals = snapshot.totals(&spans).await.unwrap();
    assert_eq!(totals.byte_ms[0], 10 * i128::from(DAY));
    let by_job = snapshot.groups(GroupBy::Job, &spans, None, 50).await.unwrap();
    assert_eq!(by_job.items.len(), 1, "{by_job:?}");
    assert_eq!((by_job.items[0].0, &by_job.items[0].1.byte_ms), (Some(job), &totals.byte_ms));
    for by in [GroupBy::User, GroupBy::JobConfiguration] {
        let unknown = snapshot.groups(by, &spans, None, 50).await.unwrap();
        assert_eq!((unknown.items[0].0, &unknown.items[0].1.byte_ms), (None, &totals.byte_ms));
    }
    drop(snapshot);
    pool.close().await;
    database.drop().await;
}

/// More files than anomalies are listed were negative for an hour each, and one of them 100,001 times. The negative and
/// positive byte-milliseconds of one file cancel out. More runs than anomalies are listed ended without a start.
#[tokio::test]
async fn usage_is_returned_despite_many_anomalies() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    let organization = Uuid::now_v7();
    let (window, spans) = june("UTC");
    let start = window.period.start().as_millis();
    let load = "with odd as ( \
             select md5('file ' || n)::uuid as file, $2 + c.after as at, c.delta from generate_series(1, 10000) n \
                 cross join (values (0, -5::bigint), (3600000, 5)) as c (after, delta) \
             union all \
             select $3, $2 + n, case n % 2 when 1 then -1 else 1 end from generate_series(1, 200002) n \
             union all \
             select $4, $2 + c.after, c.delta from (values (1, -7::bigint), (2, 14), (3, -7)) as c (after, delta) \
         ), ran as ( \
             insert into runs (job_id, number, organization_id, ended_at, ended_recorded_at, machine_type_id) \
             select md5('job ' || n)::uuid, 3, $1, $2 + n, $2 + n, machine_type_id('default') from generate_series(1, 10001) n \
         ) \
         select metering_storage_add(array_agg($1), array_agg(file), array_agg(at), array_agg(delta), array_agg(at)) from odd";
    let (often, evenly) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let load = sqlx::query(load).bind(organization).bind(start).bind(often).bind(evenly);
    load.execute(&pool).await.unwrap();
    let usage_query = UsageQuery { organization, window, known_at: None };
    let all = Page { after: None, limit: 200 };
    let answer = usage(&pool, usage_query, SharingRule::Split, &spans, all, all).await.unwrap();
    let used = -5 * 3_600_000 * 10_000 - 100_001;
    assert_eq!((answer.totals.byte_ms[0], answer.totals.storage_provisional), (used, false));
    assert_eq!((answer.file_anomalies.len(), answer.more_file_anomalies), (MAX_ANOMALIES, true));
    assert_eq!((answer.file_anomalies[0].id, answer.file_anomalies[1].id), (often, evenly));
    assert_eq!((answer.job_anomalies.len(), answer.more_job_anomalies), (MAX_ANOMALIES, true));
    let listed: Vec<_> = answer.files.items.iter().take(2).map(|file| (file.file, file.byte_ms)).collect();
    assert_eq!(listed, [(often, -100_001), (evenly, 0)]);
    // The next month has no anomalies.
    let july = Span::new(window.period.end(), Timestamp::from_millis(YEAR + 212 * DAY));
    let later = UsageQuery { organization, window: Window { period: july, as_of: july.end() }, known_at: None };
    let answer = usage(&pool, later, SharingRule::Split, &[july], all, all).await.unwrap();
    assert!(
        answer.file_anomalies.is_empty() && !answer.more_file_anomalies && answer.files.items.is_empty(),
        "{answer:?}"
    );
    assert!(answer.job_anomalies.is_empty() && !answer.more_job_anomalies, "{answer:?}");
    pool.close().await;
    database.drop().await;
}

/// One file holds as many bytes as another one is negative by, so the total level is zero.
#[tokio::test]
async fn usage_is_provisional_when_file_levels_cancel_out() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    let (window, spans) = june("UTC");
    let day = |number: i64| Timestamp::from_millis(YEAR + number * DAY);
    // File, day of the change, bytes, and day of the recording. The second field of a case is `known_at`.
    type Changes = &'static [(u128, i64, i64, i64)];
    let cases: [(Changes, Option<i64>, bool); 6] = [
        (&[(1, 10, 9, 10), (2, 11, -9, 11)], None, true),
        (&[(1, 10, 9, 10), (2, 11, -9, 11), (2, 200, 9, 200), (1, 200, -9, 200)], None, true),
        (&[(1, 10, -9, 10), (1, 11, 9, 11)], None, false),
        (&[(1, 10, -9, 10), (1, 200, 9, 200), (2, 10, -1, 10), (2, 20, 1, 10)], None, true),
        // The earlier change of the second file was recorded after `known_at`.
        (&[(1, 10, 9, 10), (2, 12, -9, 12), (2, 11, 9, 100)], Some(50), true),
        (&[(1, 10, 9, 10), (1, 12, -9, 12), (2, 12, -9, 100), (2, 11, 9, 100)], Some(50), false),
    ];
    for (changes, known_at, provisional) in cases {
        let organization = Uuid::now_v7();
        for (file, at, delta, recorded) in changes {
            let add = "select metering_storage_add(array[$1], array[$2], array[$3::bigint], array[$4::bigint], array[$5::bigint])";
            let add = sqlx::query(add).bind(organization).bind(Uuid::from_u128(*file)).bind(day(*at).as_millis());
            add.bind(delta).bind(day(*recorded).as_millis()).execute(&pool).await.unwrap();
        }
        let usage_query = UsageQuery { organization, window, known_at: known_at.map(day) };
        let totals = Snapshot::of(&pool, usage_query).await.unwrap().totals(&spans).await.unwrap();
        assert_eq!(totals.storage_provisional, provisional, "{changes:?}");
    }
    pool.close().await;
    database.drop().await;
}

/// Some twenty files are used by one job each, and runs belong to 5 users.
#[tokio::test]
async fn groups_are_refused_above_the_limit_of_parts() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    let organization = load_year(&pool).await;
    let start = YEAR + 120 * DAY;
    for (by, parts, expected_error) in [
        (GroupBy::Job, 100, None),
        (GroupBy::Job, 200_000, Some("shares of files")),
        (GroupBy::User, 200_000, Some("shares of files")),
        (GroupBy::User, 1_100_000, Some("sums by subject")),
    ] {
        let second = |number: i64| Timestamp::from_millis(start + number * 1_000);
        let spans: Vec<_> = (0..parts).map(|number| Span::new(second(number), second(number + 1))).collect();
        let window =
            Window { period: Span::new(second(0), second(parts)), as_of: Timestamp::from_millis(YEAR + 400 * DAY) };
        let mut snapshot = Snapshot::of(&pool, UsageQuery { organization, window, known_at: None }).await.unwrap();
        match (snapshot.groups(by, &spans, None, 100).await, expected_error) {
            (Ok(groups), None) => assert!(!groups.items.is_empty()),
            (Err(ReadError::LimitExceeded { what, limit: 5_000_000 }), Some(expected)) => assert_eq!(what, expected),
            (other, _) => panic!("{parts} by {by:?}: {:?}", other.map(|groups| groups.items.len())),
        }
    }
    pool.close().await;
    database.drop().await;
}

/// The only change of the file is already in its rollups, which do not know recording times.
#[tokio::test]
async fn file_is_not_shared_before_it_is_known() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    let [organization, file, job] = [Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7()];
    let load = "with linked as (insert into file_link_changes values ($1, $2, $3, 1, 2, $4, true, $4)) \
         select metering_storage_add(array[$1], array[$2], array[$4], array[10::bigint], array[$5::bigint])";
    let recorded = YEAR + 170 * DAY;
    let load = sqlx::query(load).bind(organization).bind(file).bind(job).bind(YEAR).bind(recorded);
    load.execute(&pool).await.unwrap();
    let (window, spans) = june("UTC");
    for (known_at, shares) in [(recorded - 1, 0), (recorded, 1)] {
        let usage_query = UsageQuery { organization, window, known_at: Some(Timestamp::from_millis(known_at)) };
        let mut snapshot = Snapshot::of(&pool, usage_query).await.unwrap();
        let by_job = snapshot.groups(GroupBy::Job, &spans, None, 50).await.unwrap().items;
        assert_eq!(by_job.len(), shares, "{by_job:?}");
        assert!(by_job.iter().all(|(key, usage)| *key == Some(job) && usage.byte_ms[0] == 10 * i128::from(DAY)));
    }
    pool.close().await;
    database.drop().await;
}

/// Stored files and files freed since are listed in one order of ids.
#[tokio::test]
async fn file_pages_join_at_every_page_size() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    load_year(&pool).await;
    let (window, spans) = june("UTC");
    let query = "select md5('organization ' || n)::uuid from generate_series(1, 5) n";
    let organizations: Vec<Uuid> = sqlx::query_scalar(query).fetch_all(&pool).await.unwrap();
    for organization in organizations {
        let usage_query = UsageQuery { organization, window, known_at: None };
        let page = async |after, limit| {
            usage(&pool, usage_query, SharingRule::Split, &spans, Page::default(), Page { after, limit })
                .await
                .unwrap()
                .files
        };
        let all = page(None, 200).await;
        assert!(all.next.is_none() && all.items.len() > 20, "{all:?}");
        for limit in 1..=all.items.len() {
            let (mut joined, mut after) = (Vec::new(), None);
            while joined.is_empty() || after.is_some() {
                let part = page(after, limit).await;
                assert!(part.items.len() <= limit);
                joined.extend(part.items);
                after = part.next;
            }
            assert_eq!(joined, all.items, "pages of {limit}");
        }
    }
    pool.close().await;
    database.drop().await;
}

#[tokio::test]
async fn links_are_equal_in_bulk_and_file_by_file() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    let organization = load_year(&pool).await;
    let mut connection = pool.acquire().await.unwrap();
    for (month, known) in [(0, None), (1, Some(20)), (3, None), (5, None), (5, Some(100)), (11, None)] {
        let period = [month * 30, month * 30 + 30].map(|day| Timestamp::from_millis(YEAR + day * DAY));
        let known_at = known.map(|day| Timestamp::from_millis(YEAR + day * DAY));
        let mut results = Vec::new();
        for many_links in [0, 5_000] {
            let query = shared_files::SharedFilesQuery {
                organization,
                period: (period[0], period[1]),
                known_at,
                late_files: &[],
                jobs: None,
                max_files: 100,
                max_changes: 1_000,
                many_links,
                owners: true,
                page: None,
                scopes: &[],
                from: period[0],
                spans: &[],
                max_sums: 0,
            };
            let all = shared_files::read(&mut connection, &query).await.unwrap();
            results.push((all.links, all.changes, all.owners));
        }
        assert_eq!(results[0], results[1], "month {month}, known at {known:?}");
        assert!(!results[0].0.is_empty() && results[0].0.len() == results[0].1.len(), "{:?}", results[0]);
    }
    drop(connection);
    pool.close().await;
    database.drop().await;
}
