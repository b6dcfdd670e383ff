//! An answer about usage is one statement, and each of its parts is read from an index.

use billing::BillingService;
use epoch::Timestamp;
use epoch_postgres::testkit::TestDatabase;
use rating::{
    calendar::{
        day::{days, zone},
        span::{Span, Window},
    },
    sharing::rule::Rule,
};
use service_host::service::Service;
use sqlx::{PgConnection, PgPool, Row, postgres::PgPoolOptions};
use usage::{
    page::Page,
    queries::{
        file_sums,
        groups::{GroupBy, groups},
        question::{Asked, MAX_FLAGS},
        snapshot::Snapshot,
        usage::usage,
        usage_statement::STATEMENT,
    },
    read_error::ReadError,
    rollup::sums,
    sharing::shared_files,
};
use uuid::Uuid;

/// 2025-01-01.
const YEAR: i64 = 1_735_689_600_000;
const DAY: i64 = 86_400_000;

/// A year of 40 organizations with 80 files and 60 runs each, put in by the functions that projections use.
async fn filled(pool: &PgPool) -> Uuid {
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

fn june(zone_name: &str) -> (Window, Vec<Span>) {
    let period = Span::new(Timestamp::from_millis(YEAR + 151 * DAY), Timestamp::from_millis(YEAR + 181 * DAY));
    let window = Window { period, as_of: Timestamp::from_millis(YEAR + 180 * DAY + 12_345) };
    let counted = window.counted();
    let days = days(period, &zone(zone_name).unwrap()).unwrap();
    (window, days.iter().map(|day| day.span.intersect(counted)).collect())
}

#[tokio::test]
async fn an_answer_is_one_statement() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    let organization = filled(&pool).await;
    let (window, spans) = june("Europe/Madrid");
    let listed = Page { after: None, limit: 200 };
    // Its one connection has prepared each statement that was sent.
    let alone = PgPoolOptions::new().max_connections(1);
    let alone = epoch_postgres::connect(alone, database.options(), "billing").await.unwrap();
    let asked = Asked { organization, window, known_at: None };
    let answer = usage(&alone, asked, Rule::Split, &spans, listed, listed).await.unwrap();
    let sent = sqlx::raw_sql("select count(*) from pg_prepared_statements").fetch_one(&alone).await.unwrap();
    let sent: i64 = sent.get(0);
    assert!(answer.totals.byte_ms[0] > 0 && answer.totals.users.len() > 3, "{:?}", answer.totals);
    assert!(answer.files.items.len() > 20 && answer.files.items.iter().any(|file| !file.jobs.is_empty()));
    assert!(answer.jobs.items.len() > 3 && answer.totals.storage_provisional, "{:?}", answer.jobs);
    assert_eq!(sent, 1, "statements");
    // So are rows by user, and what else is told by sums.
    let kinds = [(GroupBy::User, 2), (GroupBy::JobConfiguration, 2), (GroupBy::MachineType, 3), (GroupBy::Job, 4)];
    for (by, statements) in kinds {
        let rows = groups(&alone, asked, Rule::Split, by, &spans, listed).await.unwrap();
        assert!(!rows.items.is_empty(), "{by:?}");
        let sent = sqlx::raw_sql("select count(*) from pg_prepared_statements").fetch_one(&alone).await.unwrap();
        assert_eq!(sent.get::<i64, _>(0), statements, "{by:?}");
    }
    // Nor does it depend on the first questions how later ones are planned.
    for month in 0..12 {
        let period = [month * 30, month * 30 + 30].map(|day| Timestamp::from_millis(YEAR + day * DAY));
        let window =
            Window { period: Span::new(period[0], period[1]), as_of: Timestamp::from_millis(YEAR + 400 * DAY) };
        let asked = Asked { organization, window, known_at: None };
        let none = Page { after: None, limit: 0 };
        usage(&alone, asked, Rule::Split, &[window.period], none, none).await.unwrap();
    }
    let plans =
        "select generic_plans, custom_plans from pg_prepared_statements where statement like '-- What an answer%'";
    let plans: (i64, i64) = sqlx::query_as(plans).fetch_one(&alone).await.unwrap();
    assert_eq!(plans, (13, 0));
    alone.close().await;
    pool.close().await;
    database.drop().await;
}

/// All the others take an hour.
#[tokio::test]
async fn a_run_that_began_long_before_the_period_and_ended_in_it_is_listed() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    let organization = filled(&pool).await;
    let (window, spans) = june("UTC");
    let (start, job) = (window.period.start().as_millis(), Uuid::now_v7());
    let long = "insert into runs (job_id, number, organization_id, started_at, ended_at, started_recorded_at, ended_recorded_at, \
             machine_type_id) values ($1, 3, $2, $3, $4, $3, $4, machine_type_id('default'))";
    let run = sqlx::query(long).bind(job).bind(organization).bind(start - 50 * DAY).bind(start + 2 * DAY);
    run.execute(&pool).await.unwrap();
    let asked = Asked { organization, window, known_at: None };
    let all = Page { after: None, limit: 200 };
    let usage = usage(&pool, asked, Rule::Split, &spans, all, all).await.unwrap();
    let listed = usage.jobs.items.iter().find(|listed| listed.job == job).map(|listed| listed.run_ms);
    assert_eq!(listed, Some(i128::from(2 * DAY)));
    assert!(usage.jobs.items.len() > 1, "beside others");
    pool.close().await;
    database.drop().await;
}

/// More than an answer may read are gone since long, each of them shared. Something has changed since the month.
#[tokio::test]
async fn shares_are_of_the_files_of_the_period_and_not_of_all_there_ever_were() {
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
    let one = "with linked as ( \
             insert into file_link_changes values ($1, $2, $3, 1, 2, 1735689600000, true, 1735689600000) \
         ) select metering_storage_add(array[$1, $1], array[$2, $2], array[1735689600000, 1752969600000], \
             array[10::bigint, 5], array[1735689600000, 1752969600000])";
    let (file, job) = (Uuid::now_v7(), Uuid::now_v7());
    sqlx::query(one).bind(organization).bind(file).bind(job).execute(&pool).await.unwrap();
    let (window, spans) = june("UTC");
    let asked = Asked { organization, window, known_at: None };
    let mut snapshot = Snapshot::of(&pool, asked).await.unwrap();
    let totals = snapshot.totals(&spans).await.unwrap();
    assert_eq!(totals.byte_ms[0], 10 * i128::from(DAY));
    let by_job = snapshot.groups(GroupBy::Job, &spans, None, 50).await.unwrap();
    assert_eq!(by_job.items.len(), 1, "{by_job:?}");
    assert_eq!((by_job.items[0].0, &by_job.items[0].1.byte_ms), (Some(job), &totals.byte_ms));
    for by in [GroupBy::User, GroupBy::JobConfiguration] {
        let nobody = snapshot.groups(by, &spans, None, 50).await.unwrap();
        assert_eq!((nobody.items[0].0, &nobody.items[0].1.byte_ms), (None, &totals.byte_ms));
    }
    drop(snapshot);
    pool.close().await;
    database.drop().await;
}

/// More files than are flagged were below nothing for an hour each, one of them 100,001 times, and as many runs never started; a file was
/// as much below nothing as above.
#[tokio::test]
async fn nothing_that_is_odd_keeps_usage_from_being_told() {
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
    let asked = Asked { organization, window, known_at: None };
    let all = Page { after: None, limit: 200 };
    let answer = usage(&pool, asked, Rule::Split, &spans, all, all).await.unwrap();
    let used = -5 * 3_600_000 * 10_000 - 100_001;
    assert_eq!((answer.totals.byte_ms[0], answer.totals.storage_provisional), (used, false));
    assert_eq!((answer.odd_files.len(), answer.more_odd_files), (MAX_FLAGS, true));
    assert_eq!((answer.odd_files[0].id, answer.odd_files[1].id), (often, evenly));
    assert_eq!((answer.odd_jobs.len(), answer.more_odd_jobs), (MAX_FLAGS, true));
    let listed: Vec<_> = answer.files.items.iter().take(2).map(|file| (file.file, file.byte_ms)).collect();
    assert_eq!(listed, [(often, -100_001), (evenly, 0)]);
    // In the month after, none of it is left.
    let july = Span::new(window.period.end(), Timestamp::from_millis(YEAR + 212 * DAY));
    let later = Asked { organization, window: Window { period: july, as_of: july.end() }, known_at: None };
    let answer = usage(&pool, later, Rule::Split, &[july], all, all).await.unwrap();
    assert!(answer.odd_files.is_empty() && !answer.more_odd_files && answer.files.items.is_empty(), "{answer:?}");
    assert!(answer.odd_jobs.is_empty() && !answer.more_odd_jobs, "{answer:?}");
    pool.close().await;
    database.drop().await;
}

/// One file holds as much as another is below nothing, so that all of them hold nothing.
#[tokio::test]
async fn what_makes_up_for_each_other_is_provisional_all_the_same() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    let (window, spans) = june("UTC");
    let day = |number: i64| Timestamp::from_millis(YEAR + number * DAY);
    // Of files, days, changes and days at which they were recorded; and what was known in the middle of all.
    type Changes = &'static [(u128, i64, i64, i64)];
    let cases: [(Changes, Option<i64>, bool); 6] = [
        (&[(1, 10, 9, 10), (2, 11, -9, 11)], None, true),
        (&[(1, 10, 9, 10), (2, 11, -9, 11), (2, 200, 9, 200), (1, 200, -9, 200)], None, true),
        (&[(1, 10, -9, 10), (1, 11, 9, 11)], None, false),
        (&[(1, 10, -9, 10), (1, 200, 9, 200), (2, 10, -1, 10), (2, 20, 1, 10)], None, true),
        // That the second file held something before was not known.
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
        let asked = Asked { organization, window, known_at: known_at.map(day) };
        let totals = Snapshot::of(&pool, asked).await.unwrap().totals(&spans).await.unwrap();
        assert_eq!(totals.storage_provisional, provisional, "{changes:?}");
    }
    pool.close().await;
    database.drop().await;
}

/// Of some twenty files that a job uses each, and of the runs of 5 users.
#[tokio::test]
async fn more_parts_than_are_put_together_at_once_are_refused() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    let organization = filled(&pool).await;
    let start = YEAR + 120 * DAY;
    for (by, parts, refused) in [
        (GroupBy::Job, 100, None),
        (GroupBy::Job, 200_000, Some("parts of shared files")),
        (GroupBy::User, 200_000, Some("parts of shared files")),
        (GroupBy::User, 1_100_000, Some("sums by subject")),
    ] {
        let second = |number: i64| Timestamp::from_millis(start + number * 1_000);
        let spans: Vec<_> = (0..parts).map(|number| Span::new(second(number), second(number + 1))).collect();
        let window =
            Window { period: Span::new(second(0), second(parts)), as_of: Timestamp::from_millis(YEAR + 400 * DAY) };
        let mut snapshot = Snapshot::of(&pool, Asked { organization, window, known_at: None }).await.unwrap();
        match (snapshot.groups(by, &spans, None, 100).await, refused) {
            (Ok(groups), None) => assert!(!groups.items.is_empty()),
            (Err(ReadError::TooMuch { what, limit: 5_000_000 }), Some(expected)) => assert_eq!(what, expected),
            (other, _) => panic!("{parts} by {by:?}: {:?}", other.map(|groups| groups.items.len())),
        }
    }
    pool.close().await;
    database.drop().await;
}

/// Its only change is in its sums already; what was known when is not.
#[tokio::test]
async fn a_file_that_was_not_known_yet_is_shared_by_nobody() {
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
        let asked = Asked { organization, window, known_at: Some(Timestamp::from_millis(known_at)) };
        let mut snapshot = Snapshot::of(&pool, asked).await.unwrap();
        let by_job = snapshot.groups(GroupBy::Job, &spans, None, 50).await.unwrap().items;
        assert_eq!(by_job.len(), shares, "{by_job:?}");
        assert!(by_job.iter().all(|(key, usage)| *key == Some(job) && usage.byte_ms[0] == 10 * i128::from(DAY)));
    }
    pool.close().await;
    database.drop().await;
}

/// Those that are stored and those that were freed since, in one order of ids.
#[tokio::test]
async fn pages_of_files_join_whatever_their_size() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    filled(&pool).await;
    let (window, spans) = june("UTC");
    let some = "select md5('organization ' || n)::uuid from generate_series(1, 5) n";
    let organizations: Vec<Uuid> = sqlx::query_scalar(some).fetch_all(&pool).await.unwrap();
    for organization in organizations {
        let asked = Asked { organization, window, known_at: None };
        let page = async |after, limit| {
            usage(&pool, asked, Rule::Split, &spans, Page::default(), Page { after, limit }).await.unwrap().files
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
async fn links_are_the_same_read_at_once_or_looked_for_file_by_file() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    let organization = filled(&pool).await;
    let mut connection = pool.acquire().await.unwrap();
    for (month, known) in [(0, None), (1, Some(20)), (3, None), (5, None), (5, Some(100)), (11, None)] {
        let period = [month * 30, month * 30 + 30].map(|day| Timestamp::from_millis(YEAR + day * DAY));
        let known_at = known.map(|day| Timestamp::from_millis(YEAR + day * DAY));
        let mut found = Vec::new();
        for many_links in [0, 5_000] {
            let wanted = shared_files::Wanted {
                organization,
                period: (period[0], period[1]),
                known_at,
                unclear: &[],
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
            let all = shared_files::read(&mut connection, &wanted).await.unwrap();
            found.push((all.links, all.changes, all.owners));
        }
        assert_eq!(found[0], found[1], "month {month}, known at {known:?}");
        assert!(!found[0].0.is_empty() && found[0].0.len() == found[0].1.len(), "{:?}", found[0]);
    }
    drop(connection);
    pool.close().await;
    database.drop().await;
}

/// An organization's links ever are 60 here.
#[tokio::test]
async fn only_few_links_are_read_at_once() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    let organization = filled(&pool).await;
    let mut connection = pool.acquire().await.unwrap();
    let (first, last) = (YEAR + 151 * DAY, YEAR + 180 * DAY);
    for (many_links, at_once) in [(60, false), (61, true)] {
        let sums = arguments_of_sums(organization, first, last);
        let arguments = format!("{sums}, {first}, {last}, null, '{{}}', null, 1001, 1001, {many_links}, true");
        let types = format!("{OF_SUMS}, {OF_SHARED}");
        let plan = explained(&mut connection, &types, shared_files::STATEMENT, "analyze, timing off", &arguments).await;
        let joined = plan.lines().find(|line| line.contains("Full Join")).unwrap();
        assert_eq!(!joined.contains("never executed"), at_once, "{plan}");
    }
    drop(connection);
    pool.close().await;
    database.drop().await;
}

/// What `sums::STATEMENT` takes, and the others after it.
const OF_SUMS: &str = "uuid, bigint[], smallint[], smallint[], smallint[], bigint[], bigint[], bigint[], bigint[], integer[], smallint[], \
    smallint[], bigint[], bigint[], integer[], boolean[], bigint[], boolean, smallint[]";

/// What `shared_files::STATEMENT` takes beside the sums.
const OF_SHARED: &str = "bigint, bigint, bigint, uuid[], uuid[], bigint, bigint, bigint, boolean";

/// Sums of both meters, of days and hours and within them.
fn arguments_of_sums(organization: Uuid, first: i64, last: i64) -> String {
    format!(
        "'{organization}', '{{{first}}}', '{{1}}', '{{0}}', '{{1}}', '{{86400000}}', '{{0}}', '{{20240}}', '{{20269}}', '{{null}}', \
         '{{1,2}}', '{{0,1}}', '{{{first},{first}}}', '{{{last},{last}}}', '{{null,null}}', '{{false,false}}', \
         '{{485760,485784}}', true, '{{0,1}}'"
    )
}

/// Which indexes the kept plan of a statement reads; no table is read whole, and no function is called for each row.
async fn plan(connection: &mut PgConnection, types: &str, statement: &str, arguments: &str) -> String {
    let plan = explained(connection, types, statement, "costs off", arguments).await;
    assert!(!plan.contains("Seq Scan") && !plan.contains("Function Scan on metering_file"), "{plan}");
    plan
}

async fn explained(connection: &mut PgConnection, types: &str, statement: &str, how: &str, arguments: &str) -> String {
    // The plan that is kept for all questions. The tables are small here, so that reading them whole may look cheap.
    let prepare = format!(
        "set plan_cache_mode = force_generic_plan; set enable_seqscan = off; prepare asked ({types}) as {statement}"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(prepare)).execute(&mut *connection).await.unwrap();
    let explain = format!("explain ({how}) execute asked ({arguments})");
    let lines: Vec<String> =
        sqlx::query_scalar(sqlx::AssertSqlSafe(explain)).fetch_all(&mut *connection).await.unwrap();
    sqlx::raw_sql("deallocate asked").execute(connection).await.unwrap();
    lines.join("\n")
}

#[tokio::test]
async fn files_that_jobs_share_are_read_from_indexes() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    let organization = filled(&pool).await;
    let mut connection = pool.acquire().await.unwrap();
    let (first, last) = (YEAR + 151 * DAY, YEAR + 180 * DAY);
    let sums = arguments_of_sums(organization, first, last);
    let of_all =
        format!("{sums}, {first}, {last}, null, '{{}}', null, 200001, 200001, 5000, true, '{}', 201", Uuid::nil());
    let types = format!("{OF_SUMS}, {OF_SHARED}, uuid, bigint");
    let plan = plan(&mut connection, &types, shared_files::WITH_JOBS, &of_all).await;
    for index in [
        "Index Only Scan using metering_files_stored on",
        "Index Only Scan using metering_files_freed on",
        "Index Only Scan using file_link_changes_of_files on",
        "Index Only Scan using storage_changes_of_files on",
        "file_link_changes_by_job",
        "Index Only Scan using runs_of_period on",
    ] {
        assert!(plan.contains(index), "{index} is not used:\n{plan}");
    }
    drop(connection);
    pool.close().await;
    database.drop().await;
}

#[tokio::test]
async fn sums_of_files_are_read_from_indexes() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    let organization = filled(&pool).await;
    let mut connection = pool.acquire().await.unwrap();
    let types = "uuid, uuid[], bigint, bigint, bigint, bigint[], smallint[], bigint[], bigint[], bigint[], bigint[], bigint[], \
        bigint[], boolean[], bigint[]";
    let (first, last, file) = (YEAR + 151 * DAY, YEAR + 180 * DAY, Uuid::nil());
    let arguments = format!(
        "'{organization}', '{{{file}}}', {last}, null, 200001, '{{{first}}}', '{{1}}', '{{86400000}}', '{{0}}', '{{20240}}', '{{20269}}', \
         '{{{first}}}', '{{{last}}}', '{{false}}', '{{485760,485784}}'"
    );
    let plan = plan(&mut connection, types, file_sums::STATEMENT, &arguments).await;
    for index in ["metering_file_sums_pkey", "Index Only Scan using storage_changes_of_files on"] {
        assert!(plan.contains(index), "{index} is not used:\n{plan}");
    }
    drop(connection);
    pool.close().await;
    database.drop().await;
}

#[tokio::test]
async fn each_part_of_an_answer_is_read_from_its_index() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    let organization = filled(&pool).await;
    let mut connection = pool.acquire().await.unwrap();
    let types =
        format!("{OF_SUMS}, bigint, bigint, bigint, uuid, bigint, uuid[], bigint, bigint, boolean, uuid, bigint");
    let (first, last, nil) = (YEAR + 151 * DAY, YEAR + 180 * DAY, Uuid::nil());
    let sums = arguments_of_sums(organization, first, last);
    let arguments = format!("{sums}, {first}, {last}, null, '{nil}', 201, '{{}}', 10001, 200001, true, '{nil}', 201");
    let listed = plan(&mut connection, &types, STATEMENT, &arguments).await;
    for index in [
        "Index Only Scan using metering_files_stored on",
        "Index Only Scan using metering_files_freed on",
        "Index Only Scan using runs_of_period on",
        "Index Only Scan using runs_going_on on",
        "Index Only Scan using runs_odd on",
        "Index Only Scan using storage_changes_of_files on",
        "Index Only Scan using storage_changes_by_time on",
        "Index Only Scan using file_link_changes_of_files on",
        "metering_storage_sums_pkey",
        "metering_run_sums_pkey",
        "metering_files_negative",
        "runs_by_length",
        "runs_by_end",
    ] {
        assert!(listed.contains(index), "{index} is not used:\n{listed}");
    }
    let alone = plan(&mut connection, OF_SUMS, sums::STATEMENT, &sums).await;
    for index in [
        "metering_storage_sums_pkey",
        "metering_run_sums_pkey",
        "storage_changes_by_time",
        "runs_of_period",
        "runs_by_end",
    ] {
        assert!(alone.contains(index), "{index} is not used:\n{alone}");
    }
    drop(connection);
    pool.close().await;
    database.drop().await;
}
