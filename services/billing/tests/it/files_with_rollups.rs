//! Files of many changes cost no more than files of few.

use std::collections::BTreeMap;

use billing::BillingService;
use epoch::Timestamp;
use epoch_postgres::{migrate, testkit::TestDatabase};
use rating::{
    calendar::{
        day::{days, zone},
        span::{Span, Window},
    },
    sharing::rule::Rule,
};
use service_host::service::Service;
use sqlx::{PgPool, migrate::Migrator};
use usage::{
    page::Page,
    queries::{
        groups::GroupBy,
        question::{Asked, MAX_CHANGES},
        snapshot::Snapshot,
        usage::usage,
    },
};
use uuid::Uuid;

use crate::support::{at, few_changes_are, id};

const HOUR: i64 = 3_600_000;

/// Files of one organization, each uploaded in so many parts.
const FILES: i64 = 25;
const PARTS: i64 = 8_400;

/// 2025-10-15T21:30:00Z: a day ends in the middle of each upload, in Madrid as well.
const UPLOADED: i64 = 1_760_563_800_000;
/// A part each so many milliseconds.
const EACH: i64 = 1_000;
/// How many bytes.
const PART: i64 = 7;

/// Uploads; every second file is deleted five days later. Two jobs use each of them from a day after the upload on.
async fn uploaded(pool: &PgPool, organization: Uuid) {
    let upload = "select metering_storage_add(array_agg($1), array_agg(md5('file ' || f)::uuid), array_agg($4 + p * $5), \
             array_agg($6), array_agg($4 + p * $5 + 50)) \
         from generate_series(1, $2::bigint) f cross join generate_series($3, $3 + 2099) p";
    for first in (0..PARTS).step_by(2_100) {
        let upload =
            sqlx::query(upload).bind(organization).bind(FILES).bind(first).bind(UPLOADED).bind(EACH).bind(PART);
        upload.execute(pool).await.unwrap();
    }
    let delete = "select metering_storage_add(array_agg($1), array_agg(md5('file ' || f)::uuid), array_agg($3), array_agg($4), \
             array_agg($3)) \
         from generate_series(2, $2::bigint, 2) f";
    let delete = sqlx::query(delete).bind(organization).bind(FILES).bind(UPLOADED + 120 * HOUR).bind(-PART * PARTS);
    delete.execute(pool).await.unwrap();
    let link = "insert into file_link_changes \
         select $1, md5('file ' || f)::uuid, job, 1, 2, $3, true, $3 from generate_series(1, $2::bigint) f cross join unnest($4) job";
    let link = sqlx::query(link).bind(organization).bind(FILES).bind(UPLOADED + 24 * HOUR).bind([id(11), id(12)]);
    link.execute(pool).await.unwrap();
}

/// The byte-milliseconds of a file of an even or odd number, from the formula.
fn area(even: bool, span: Span) -> i128 {
    let (start, end) = (span.start().as_millis(), span.end().as_millis());
    let of = |delta: i64, when: i64| i128::from(delta) * i128::from((end - start.max(when)).max(0));
    let parts: i128 = (0..PARTS).map(|part| of(PART, UPLOADED + part * EACH)).sum();
    parts - if even { of(PART * PARTS, UPLOADED + 120 * HOUR) } else { 0 }
}

#[tokio::test]
async fn more_parts_than_an_answer_reads_are_told_by_file_job_and_user() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    let organization = Uuid::now_v7();
    uploaded(&pool, organization).await;
    const { assert!(FILES * PARTS > MAX_CHANGES) };
    let as_of = at("2026-01-01T00:00:00Z");
    // The month of the upload, one that begins within it, and the one after.
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
        let expected = |even| spans.iter().map(|span| area(even, *span)).collect::<Vec<_>>();
        let of_file = BTreeMap::from([(false, expected(false)), (true, expected(true))]);
        let stored = |even: &bool| of_file[even].iter().any(|area| *area != 0);
        let files = [(false, (FILES + 1) / 2), (true, FILES / 2)];
        let listed: i64 = files.iter().filter(|(even, _)| stored(even)).map(|(_, count)| count).sum();
        for known_at in [None, Some(at("2025-12-31T00:00:00Z"))] {
            let asked = Asked { organization, window, known_at };
            let mut snapshot = Snapshot::of(&pool, asked).await.unwrap();
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
                // Nobody is known to have created them.
                assert_eq!(keys, if by == GroupBy::Job { vec![id(11), id(12)] } else { Vec::new() }, "{start}");
                let sum = |span: usize| rows.iter().map(|(_, usage)| usage.byte_ms[span]).sum::<i128>();
                assert_eq!((0..spans.len()).map(sum).collect::<Vec<_>>(), totals, "{start}");
            }
            drop(snapshot);
            let all = Page { after: None, limit: 100 };
            let answer = usage(&pool, asked, Rule::Split, &spans, all, all).await.unwrap();
            assert_eq!(i64::try_from(answer.files.items.len()).unwrap(), listed, "{start}");
            for file in &answer.files.items {
                let sums = |even: bool| of_file[&even].iter().sum::<i128>() == file.byte_ms;
                assert!(sums(true) || sums(false), "{start}: {file:?}");
                let [first, second] = &file.jobs[..] else { panic!("{start}: {file:?}") };
                assert_eq!(first.1 + second.1 + file.unattributed_byte_ms, file.byte_ms, "{start}");
                // From the link on, half each; one of them has the odd byte-millisecond.
                assert!((0..=1).contains(&(first.1 - second.1)), "{start}: {file:?}");
                let linked = Span::new(Timestamp::from_millis(UPLOADED + 24 * HOUR), period.end()).intersect(period);
                let even = sums(true) && (!sums(false) || file.byte_ms < area(false, period));
                assert_eq!(first.1 + second.1, area(even, linked), "{start}: {file:?}");
            }
        }
    }
    // Their events are told as well, on as many pages as it takes.
    let window = Window { period: Span::new(at("2025-10-01T00:00:00Z"), at("2025-11-01T00:00:00Z")), as_of };
    let mut snapshot = Snapshot::of(&pool, Asked { organization, window, known_at: None }).await.unwrap();
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
    // By the hour, too; more changes lie in some hours than in others.
    let hours: Vec<_> = (0..12)
        .map(|hour| Timestamp::from_millis(UPLOADED + (hour - 2) * HOUR))
        .map(|hour| Span::new(hour, Timestamp::from_millis(hour.as_millis() + HOUR)))
        .collect();
    let window = Window { period: Span::new(hours[0].start(), hours[11].end()), as_of };
    let mut snapshot = Snapshot::of(&pool, Asked { organization, window, known_at: None }).await.unwrap();
    let by_file = snapshot.groups(GroupBy::File, &hours, None, 100).await.unwrap();
    let expected: Vec<_> = hours.iter().map(|hour| area(false, *hour)).collect();
    assert!(by_file.items.iter().all(|(_, usage)| usage.byte_ms == expected), "{by_file:?}");
    assert_eq!(i64::try_from(by_file.items.len()).unwrap(), FILES);
    drop(snapshot);
    pool.close().await;
    database.drop().await;
}

/// A file's sums by width, bucket, S0 and S1; and how many changes were counted, and whether it has sums.
async fn sums(pool: &PgPool, file: Uuid) -> (Vec<(i16, i64, String, String)>, (Option<i64>, bool)) {
    let query = "select width, bucket, s0::text, s1::text from metering_file_sums where file_id = $1 order by 1, 2";
    let sums = sqlx::query_as(query).bind(file).fetch_all(pool).await.unwrap();
    let query = "select changes, has_sums from metering_files where file_id = $1";
    (sums, sqlx::query_as(query).bind(file).fetch_one(pool).await.unwrap())
}

/// A byte more, so many hours after 2025-10-15T21:30:00Z.
async fn grows(pool: &PgPool, organization: Uuid, file: Uuid, hours: impl IntoIterator<Item = i64>) {
    let instants: Vec<i64> = hours.into_iter().map(|hour| UPLOADED + hour * HOUR).collect();
    let add = "select metering_storage_add(array_agg($1), array_agg($2), array_agg(at), array_agg(1::bigint), array_agg(at)) \
         from unnest($3) at";
    sqlx::query(add).bind(organization).bind(file).bind(instants).execute(pool).await.unwrap();
}

#[tokio::test]
async fn a_file_has_sums_of_all_its_changes_from_the_one_on_that_makes_them_many() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    let organization = Uuid::now_v7();
    let [slowly, at_once, apart] = [id(1), id(2), id(3)];
    for hour in 0..33 {
        let (sums, kept) = if hour == 0 { (Vec::new(), (Some(0), false)) } else { sums(&pool, slowly).await };
        assert_eq!((sums.len(), kept), (0, (Some(hour), false)));
        grows(&pool, organization, slowly, [hour]).await;
    }
    let (of_slowly, kept) = sums(&pool, slowly).await;
    assert_eq!(kept, (Some(33), true));
    assert_eq!(of_slowly.iter().filter(|(width, ..)| *width == 0).count(), 33);
    grows(&pool, organization, at_once, 0..33).await;
    assert_eq!(sums(&pool, at_once).await, (of_slowly, kept));
    // What comes then is added, in hours that are there already and in others.
    for file in [slowly, at_once] {
        grows(&pool, organization, file, [3, 3, 50]).await;
    }
    grows(&pool, organization, apart, (0..33).chain([3, 3, 50])).await;
    let whole = sums(&pool, apart).await;
    assert_eq!((sums(&pool, slowly).await, sums(&pool, at_once).await), (whole.clone(), whole));
    pool.close().await;
    database.drop().await;
}

/// The last migration before files had sums of their own.
const BEFORE: i64 = 1060;

/// Such files are counted with their next change, and until then told by all their changes.
#[tokio::test]
async fn files_from_before_are_told_as_well() {
    let all = BillingService::migrations();
    let earlier = all.iter().filter(|migration| migration.version <= BEFORE).cloned().collect();
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", &Migrator::with_migrations(earlier)).await;
    let (organization, [few, many, afresh]) = (Uuid::now_v7(), [id(1), id(2), id(3)]);
    grows(&pool, organization, few, 0..2).await;
    grows(&pool, organization, many, 0..40).await;
    migrate(&pool, "billing", all).await.unwrap();
    assert_eq!(sums(&pool, many).await, (Vec::new(), (None, false)));
    let period = Span::new(at("2025-10-15T00:00:00Z"), at("2025-10-18T00:00:00Z"));
    let spans: Vec<_> = days(period, &zone("UTC").unwrap()).unwrap().iter().map(|day| day.span).collect();
    let asked = Asked { organization, window: Window { period, as_of: at("2026-01-01T00:00:00Z") }, known_at: None };
    let told = async || {
        let mut snapshot = Snapshot::of(&pool, asked).await.unwrap();
        let rows = snapshot.groups(GroupBy::File, &spans, None, 9).await.unwrap().items;
        rows.into_iter().map(|(file, usage)| (file.unwrap(), usage.byte_ms)).collect::<BTreeMap<_, _>>()
    };
    let of = |hours: std::ops::Range<i64>, more: &[i64]| {
        let area = |span: &Span| {
            let (start, end) = (span.start().as_millis(), span.end().as_millis());
            let each = hours.clone().chain(more.iter().copied()).map(|hour| UPLOADED + hour * HOUR);
            each.map(|when| i128::from((end - start.max(when)).max(0))).sum::<i128>()
        };
        spans.iter().map(area).collect::<Vec<_>>()
    };
    assert_eq!(told().await, BTreeMap::from([(few, of(0..2, &[])), (many, of(0..40, &[]))]));
    for file in [few, many] {
        grows(&pool, organization, file, [7]).await;
    }
    assert_eq!(told().await, BTreeMap::from([(few, of(0..2, &[7])), (many, of(0..40, &[7]))]));
    assert_eq!(sums(&pool, few).await, (Vec::new(), (Some(3), false)));
    grows(&pool, organization, afresh, (0..40).chain([7])).await;
    assert_eq!(sums(&pool, many).await, sums(&pool, afresh).await);
    // So are files of a version that thinks other numbers few.
    few_changes_are(&pool, 2).await;
    grows(&pool, organization, few, [8]).await;
    assert_eq!(sums(&pool, few).await.1, (Some(4), true));
    assert_eq!(told().await[&few], of(0..2, &[7, 8]));
    few_changes_are(&pool, 100).await;
    grows(&pool, organization, few, [9]).await;
    assert_eq!(told().await[&few], of(0..2, &[7, 8, 9]));
    pool.close().await;
    database.drop().await;
}
