//! A rolling update: processes of the version before go on by the functions and names that they know.

use std::collections::BTreeSet;

use billing::BillingService;
use epoch_postgres::{migrate, testkit::TestDatabase};
use service_host::service::Service;
use sqlx::{PgPool, migrate::Migrator};
use uuid::Uuid;

/// The last migration before sums lay in a table for each meter.
const BEFORE: i64 = 1021;

/// 2025-10-26.
const DAY: i64 = 1_761_436_800_000;
const HOUR: i64 = 3_600_000;

/// All sums, as the version before reads them.
async fn sums(pool: &PgPool) -> BTreeSet<(Uuid, i16, i16, i16, i64, Uuid, String, String)> {
    let query = "select organization_id, meter, scope, width, bucket, subject, s0::text, s1::text from metering_sums";
    sqlx::query_as(query).fetch_all(pool).await.unwrap().into_iter().collect()
}

/// A byte is stored and a job starts, as the version before takes it in.
async fn taken_in(pool: &PgPool, organization: Uuid, at: i64) {
    let stored = "select metering_storage_add(array[$1], array[$2], array[$3], array[5::bigint], array[$3], array[$4])";
    let file = Uuid::now_v7();
    sqlx::query(stored).bind(organization).bind(file).bind(at).bind(Uuid::now_v7()).execute(pool).await.unwrap();
    let stored = "select metering_storage_add(array[$1], array[$2], array[$3], array[3::bigint], array[$3])";
    sqlx::query(stored).bind(organization).bind(file).bind(at + 1).execute(pool).await.unwrap();
    let ran = "select metering_add(array[$1, $1, $1], array[2, 2, 1]::smallint[], array[0, 1, 0]::smallint[], \
         array[$2, $3, $2], array[$4, $4, $4], array[1, 1, 7]::bigint[])";
    let query = sqlx::query(ran).bind(organization).bind(Uuid::nil()).bind(Uuid::max()).bind(at);
    query.execute(pool).await.unwrap();
}

#[tokio::test]
async fn the_version_before_reads_and_writes_on() {
    let all = BillingService::migrations();
    let earlier = all.iter().filter(|migration| migration.version <= BEFORE).cloned().collect();
    let (database, other) = (TestDatabase::create().await, TestDatabase::create().await);
    let pool = database.pool("billing", &Migrator::with_migrations(earlier)).await;
    let organization = Uuid::now_v7();
    for number in 0..50 {
        taken_in(&pool, organization, DAY + number * HOUR).await;
    }
    let before = sums(&pool).await;
    migrate(&pool, "billing", all).await.unwrap();
    assert_eq!(sums(&pool).await, before);

    // From there on they are what they would have been from the beginning.
    taken_in(&pool, organization, DAY + HOUR).await;
    let afresh = other.pool("billing", all).await;
    for number in 0..50 {
        taken_in(&afresh, organization, DAY + number * HOUR).await;
    }
    taken_in(&afresh, organization, DAY + HOUR).await;
    let after = sums(&pool).await;
    assert_eq!((after.len(), &after), (before.len(), &sums(&afresh).await));
    assert_ne!(after, before);

    // What is asked of one meter is read from its table alone.
    for (meter, table, not) in
        [(1, "metering_storage_sums", "metering_run_sums"), (2, "metering_run_sums", "metering_storage_sums")]
    {
        let query = format!(
            "explain select s0 from metering_sums where organization_id = '{organization}' and meter = {meter}"
        );
        let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_all(&pool).await.unwrap();
        let plan = plan.join("\n");
        assert!(plan.contains(table) && !plan.contains(not), "{plan}");
    }
    for (pool, database) in [(pool, database), (afresh, other)] {
        pool.close().await;
        database.drop().await;
    }
}
