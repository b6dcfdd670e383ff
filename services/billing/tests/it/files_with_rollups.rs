//! Rollups of files with many changes, so that such files cost no more to read than others.

use std::collections::BTreeMap;

use billing::BillingService;
use epoch::Timestamp;
use epoch_postgres::{migrate, testkit::TestDatabase};
use rating::{
    calendar::{
        day::{days, zone},
        span::{Span, Window},
    },
    sharing::rule::SharingRule,
};
use service_host::service::Service;
use sqlx::{PgPool, migrate::Migrator};
use usage::{
    page::Page,
    queries::{
        groups::GroupBy,
        snapshot::Snapshot,
        usage::usage,
        usage_query::{MAX_CHANGES, UsageQuery},
    },
};
use uuid::Uuid;

use crate::support::{HOUR, at, id, set_rollup_threshold};

/// Files of one organization.
const FILES: i64 = 25;
/// Parts of each file.
const PARTS: i64 = 8_400;

/// Start of the uploads, 2025-10-15T21:30:00Z: a UTC day and a Madrid day end in the middle of each upload.
const UPLOAD_START: i64 = 1_760_563_800_000;
/// Milliseconds between two parts.
const PART_INTERVAL: i64 = 1_000;
/// Bytes of a part.
const PART_BYTES: i64 = 7;

/// Uploads all files and deletes every second one five days later. Two jobs use each file from a day after the upload on.
async fn upload_files(pool: &PgPool, organization: Uuid) {
    let upload = "select metering_storage_add(array_agg($1), array_agg(md5('file ' || f)::uuid), array_agg($4 + p * $5), \
             array_agg($6), array_agg($4 + p * $5 + 50)) \
         from generate_series(1, $2::bigint) f cross join generate_series($3, $3 + 2099) p";
    for first in (0..PARTS).step_by(2_100) {
        let upload = sqlx::query(upload)
            .bind(organization)
            .bind(FILES)
            .bind(first)
            .bind(UPLOAD_START)
            .bind(PART_INTERVAL)
            .bind(PART_BYTES);
        upload.execute(pool).await.unwrap();
    }
    let delete = "select metering_storage_add(array_agg($1), array_agg(md5('file ' || f)::uuid), array_agg($3), array_agg($4), \
             array_agg($3)) \
         from generate_series(2, $2::bigint, 2) f";
    let delete =
        sqlx::query(delete).bind(organization).bind(FILES).bind(UPLOAD_START + 120 * HOUR).bind(-PART_BYTES * PARTS);
    delete.execute(pool).await.unwrap();
    let link = "insert into file_link_changes \
         select $1, md5('file ' || f)::uuid, job, 1, 2, $3, true, $3 from generate_series(1, $2::bigint) f cross join unnest($4) job";
    let link = sqlx::query(link).bind(organization).bind(FILES).bind(UPLOAD_START + 24 * HOUR).bind([id(11), id(12)]);
    link.execute(pool).await.unwrap();
}

/// Computes byte-milliseconds of a file with an even (deleted) or odd number from the formula.
fn expected_byte_ms(even: bool, span: Span) -> i128 {
    let (start, end) = (span.start().as_millis(), span.end().as_millis());
    let of = |delta: i64, when: i64| i128::from(delta) * i128::from((end - start.max(when)).max(0));
    let parts: i128 = (0..PARTS).map(|part| of(PART_BYTES, UPLOAD_START + part * PART_INTERVAL)).sum();
    parts - if even { of(PART_BYTES * PARTS, UPLOAD_START + 120 * HOUR) } else { 0 }
}

#[tokio::test]
async fn usage_groups_are_exact_beyond_the_change_limit() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    let organization = Uuid::now_v7();
    upload_files(&pool, organization).await;
    const { assert!(FILES * PARTS > MAX_CHANGES) };
    let as_of = at("2026-01-01T00:00:00Z");
    // The month of the upload, a month that begins during the upload, and the following month.
    let months = [
        ("2025-10-01T00:00:00+02:00[Europe/Madrid]", "2025-11-01T00:00:00+01:00[Europe/Madrid]", "Europe/Madrid"),
        ("2025-10-15T22:45:00.123Z", "2025-11-14T22:45:00.123Z", "Asia/Kathmandu"),
        ("2025-11-01T00:00:00Z", "2025-12-01T00:00:00Z", "UTC"),
    ];
    for (start, end, zone_name) in months {
        let instant = |text: &str| match text.split_once('[') {
            Some((instant, _)) => at(instant),
            None => at(text),
        };
        let period = Span::new(instant(start), instant(end));
        let window = Window { period, as_of };
        let spans: Vec<_> = days(period, &zone(zone_name).unwrap()).unwrap().iter().map(|day| day.span).collect();
        let expected = |even| spans.iter().map(|span| expected_byte_ms(even, *span)).collect::<Vec<_>>();
        let of_file = BTreeMap::from([(false, expected(false)), (true, expected(true))]);
        let stored = |even: &bool| of_file[even].iter().any(|area| *area != 0);
        let files = [(false, (FILES + 1) / 2), (true, FILES / 2)];
        let listed: i64 = files.iter().filter(|(even, _)| stored(even)).map(|(_, count)| count).sum();
        for known_at in [None, Some(at("2025-12-31T00:00:00Z"))] {
            let usage_query = UsageQuery { organization, window, known_at };
            let mut snapshot = Snapshot::of(&pool, usage_query).await.unwrap();
            let totals = snapshot.totals(&spans).await.unwrap().byte_ms;
            let by_file = snapshot.groups(GroupBy::File, &spans, None, 100).await.unwrap();
            assert_eq!(i64::try_from(by_file.items.len()).unwrap(), listed, "{start}");
            for (file, usage) in &by_file.items {
                assert!(of_file.values().any(|of_file| *of_file == usage.byte_ms), "{start}: {file:?}: {usage:?}");
            }
            let sum = |span: usize| by_file.items.iter().map(|(_, usage)| usage.byte_ms[span]).sum::<i128>();
            assert_eq!((0..spans.len()).map(sum).collect::<Vec<_>>(), totals, "{start}");
            for by in [GroupBy::Job, GroupBy::User, GroupBy::JobConfiguration] {
                let rows = snapshot.groups(by, &spans, None, 100).await.unwrap().items;
                let keys: Vec<_> = rows.iter().filter_map(|(key, _)| *key).collect();
                // The creators of the jobs are unknown, so there is no user or configuration to group by.
                assert_eq!(keys, if by == GroupBy::Job { vec![id(11), id(12)] } else { Vec::new() }, "{start}");
                let sum = |span: usize| rows.iter().map(|(_, usage)| usage.byte_ms[span]).sum::<i128>();
                assert_eq!((0..spans.len()).map(sum).collect::<Vec<_>>(), totals, "{start}");
            }
            drop(snapshot);
            let all = Page { after: None, limit: 100 };
            let answer = usage(&pool, usage_query, SharingRule::Split, &spans, all, all).await.unwrap();
            assert_eq!(i64::try_from(answer.files.items.len()).unwrap(), listed, "{start}");
            for file in &answer.files.items {
                let equals_file = |even: bool| of_file[&even].iter().sum::<i128>() == file.byte_ms;
                assert!(equals_file(true) || equals_file(false), "{start}: {file:?}");
                let [first, second] = &file.jobs[..] else { panic!("{start}: {file:?}") };
                assert_eq!(first.1 + second.1 + file.unattributed_byte_ms, file.byte_ms, "{start}");
                // From the link on each job has half, and one of them the odd byte-millisecond.
                assert!((0..=1).contains(&(first.1 - second.1)), "{start}: {file:?}");
                let linked =
                    Span::new(Timestamp::from_millis(UPLOAD_START + 24 * HOUR), period.end()).intersect(period);
                let even = equals_file(true) && (!equals_file(false) || file.byte_ms < expected_byte_ms(false, period));
                assert_eq!(first.1 + second.1, expected_byte_ms(even, linked), "{start}: {file:?}");
            }
        }
    }
    // Origins list all events of the files, over two pages.
    let window = Window { period: Span::new(at("2025-10-01T00:00:00Z"), at("2025-11-01T00:00:00Z")), as_of };
    let mut snapshot = Snapshot::of(&pool, UsageQuery { organization, window, known_at: None }).await.unwrap();
    let (mut events, mut pages, mut after) = (BTreeMap::new(), 0, None);
    while pages == 0 || after.is_some() {
        let page = snapshot.origins_of_files(after, 100).await.unwrap();
        for (file, origins) in page.items {
            assert_eq!(events.insert(file, origins.len()), None, "{file} twice");
        }
        (after, pages) = (page.next, pages + 1);
    }
    assert_eq!((pages, events.len()), (2, 25));
    let deleted = usize::try_from(FILES / 2 + FILES * PARTS).unwrap();
    assert_eq!(events.into_values().sum::<usize>(), deleted);
    drop(snapshot);
    // Hourly spans are exact, too, although some hours hold more changes than others.
    let hours: Vec<_> = (0..12)
        .map(|hour| Timestamp::from_millis(UPLOAD_START + (hour - 2) * HOUR))
        .map(|hour| Span::new(hour, Timestamp::from_millis(hour.as_millis() + HOUR)))
        .collect();
    let window = Window { period: Span::new(hours[0].start(), hours[11].end()), as_of };
    let mut snapshot = Snapshot::of(&pool, UsageQuery { organization, window, known_at: None }).await.unwrap();
    let by_file = snapshot.groups(GroupBy::File, &hours, None, 100).await.unwrap();
    let expected: Vec<_> = hours.iter().map(|hour| expected_byte_ms(false, *hour)).collect();
    assert!(by_file.items.iter().all(|(_, usage)| usage.byte_ms == expected), "{by_file:?}");
    assert_eq!(i64::try_from(by_file.items.len()).unwrap(), FILES);
    drop(snapshot);
    pool.close().await;
    database.drop().await;
}

#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
struct Rollup {
    width: i16,
    bucket: i64,
    s0: String,
    s1: String,
}

/// The counted changes of a file (`None`: not counted yet), and whether it has rollups.
#[derive(Debug, Clone, Copy, PartialEq, sqlx::FromRow)]
struct FileCount {
    changes: Option<i64>,
    has_sums: bool,
}

impl FileCount {
    fn of(changes: impl Into<Option<i64>>, has_sums: bool) -> Self {
        Self { changes: changes.into(), has_sums }
    }
}

async fn rollups(pool: &PgPool, file: Uuid) -> (Vec<Rollup>, FileCount) {
    let query = "select width, bucket, s0::text, s1::text from metering_file_sums where file_id = $1 order by 1, 2";
    let rollups = sqlx::query_as(query).bind(file).fetch_all(pool).await.unwrap();
    let query = "select changes, has_sums from metering_files where file_id = $1";
    (rollups, sqlx::query_as(query).bind(file).fetch_one(pool).await.unwrap())
}

/// Adds a byte to the file at each of these hours after [`UPLOAD_START`].
async fn grow(pool: &PgPool, organization: Uuid, file: Uuid, hours: impl IntoIterator<Item = i64>) {
    let instants: Vec<i64> = hours.into_iter().map(|hour| UPLOAD_START + hour * HOUR).collect();
    let add = "select metering_storage_add(array_agg($1), array_agg($2), array_agg(at), array_agg(1::bigint), array_agg(at)) \
         from unnest($3) at";
    sqlx::query(add).bind(organization).bind(file).bind(instants).execute(pool).await.unwrap();
}

#[tokio::test]
async fn file_gets_rollups_of_all_changes_past_the_threshold() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    let organization = Uuid::now_v7();
    let [slowly, at_once, apart] = [id(1), id(2), id(3)];
    for hour in 0..33 {
        let (before, count) =
            if hour == 0 { (Vec::new(), FileCount::of(0, false)) } else { rollups(&pool, slowly).await };
        assert_eq!((before.len(), count), (0, FileCount::of(hour, false)));
        grow(&pool, organization, slowly, [hour]).await;
    }
    let (of_slowly, count) = rollups(&pool, slowly).await;
    assert_eq!(count, FileCount::of(33, true));
    assert_eq!(of_slowly.iter().filter(|rollup| rollup.width == 0).count(), 33);
    grow(&pool, organization, at_once, 0..33).await;
    assert_eq!(rollups(&pool, at_once).await, (of_slowly, count));
    // Later changes are added, both in hours that have a rollup and in new ones.
    for file in [slowly, at_once] {
        grow(&pool, organization, file, [3, 3, 50]).await;
    }
    grow(&pool, organization, apart, (0..33).chain([3, 3, 50])).await;
    let expected = rollups(&pool, apart).await;
    assert_eq!((rollups(&pool, slowly).await, rollups(&pool, at_once).await), (expected.clone(), expected));
    pool.close().await;
    database.drop().await;
}

/// The last migration before files had rollups of their own.
const PREVIOUS_MIGRATION: i64 = 1060;

/// The changes of such files are counted with the next change. Until then usage is read from all their changes.
#[tokio::test]
async fn files_without_rollups_are_counted_after_migration() {
    let all = BillingService::migrations();
    let earlier = all.iter().filter(|migration| migration.version <= PREVIOUS_MIGRATION).cloned().collect();
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", &Migrator::with_migrations(earlier)).await;
    let (organization, [few, many, fresh]) = (Uuid::now_v7(), [id(1), id(2), id(3)]);
    grow(&pool, organization, few, 0..2).await;
    grow(&pool, organization, many, 0..40).await;
    migrate(&pool, "billing", all).await.unwrap();
    assert_eq!(rollups(&pool, many).await, (Vec::new(), FileCount::of(None, false)));
    let period = Span::new(at("2025-10-15T00:00:00Z"), at("2025-10-18T00:00:00Z"));
    let spans: Vec<_> = days(period, &zone("UTC").unwrap()).unwrap().iter().map(|day| day.span).collect();
    let usage_query =
        UsageQuery { organization, window: Window { period, as_of: at("2026-01-01T00:00:00Z") }, known_at: None };
    let read_usage = async || {
        let mut snapshot = Snapshot::of(&pool, usage_query).await.unwrap();
        let rows = snapshot.groups(GroupBy::File, &spans, None, 9).await.unwrap().items;
        rows.into_iter().map(|(file, usage)| (file.unwrap(), usage.byte_ms)).collect::<BTreeMap<_, _>>()
    };
    let expected = |hours: std::ops::Range<i64>, more: &[i64]| {
        let area = |span: &Span| {
            let (start, end) = (span.start().as_millis(), span.end().as_millis());
            let each = hours.clone().chain(more.iter().copied()).map(|hour| UPLOAD_START + hour * HOUR);
            each.map(|when| i128::from((end - start.max(when)).max(0))).sum::<i128>()
        };
        spans.iter().map(area).collect::<Vec<_>>()
    };
    assert_eq!(read_usage().await, BTreeMap::from([(few, expected(0..2, &[])), (many, expected(0..40, &[]))]));
    for file in [few, many] {
        grow(&pool, organization, file, [7]).await;
    }
    assert_eq!(read_usage().await, BTreeMap::from([(few, expected(0..2, &[7])), (many, expected(0..40, &[7]))]));
    assert_eq!(rollups(&pool, few).await, (Vec::new(), FileCount::of(3, false)));
    grow(&pool, organization, fresh, (0..40).chain([7])).await;
    assert_eq!(rollups(&pool, many).await, rollups(&pool, fresh).await);
    // The same holds after a version with another threshold has written the files.
    set_rollup_threshold(&pool, 2).await;
    grow(&pool, organization, few, [8]).await;
    assert_eq!(rollups(&pool, few).await.1, FileCount::of(4, true));
    assert_eq!(read_usage().await[&few], expected(0..2, &[7, 8]));
    set_rollup_threshold(&pool, 100).await;
    grow(&pool, organization, few, [9]).await;
    assert_eq!(read_usage().await[&few], expected(0..2, &[7, 8, 9]));
    pool.close().await;
    database.drop().await;
}
