//! Rolling update: processes of the previous version keep using the SQL functions and views that they know.

use std::collections::BTreeSet;

use billing::BillingService;
use epoch_postgres::{migrate, testkit::TestDatabase};
use service_host::service::Service;
use sqlx::{PgPool, migrate::Migrator};
use uuid::Uuid;

use crate::support::HOUR;

/// The last migration before each meter had a rollup table of its own.
const PREVIOUS_MIGRATION: i64 = 1021;

/// 2025-10-26T00:00:00Z.
const SUNDAY: i64 = 1_761_436_800_000;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, sqlx::FromRow)]
struct Rollup {
    organization_id: Uuid,
    meter: i16,
    scope: i16,
    width: i16,
    bucket: i64,
    subject: Uuid,
    s0: String,
    s1: String,
}

/// Reads all rollups as the previous version does.
async fn rollups(pool: &PgPool) -> BTreeSet<Rollup> {
    let query = "select organization_id, meter, scope, width, bucket, subject, s0::text, s1::text from metering_sums";
    sqlx::query_as(query).fetch_all(pool).await.unwrap().into_iter().collect()
}

/// Stores bytes and starts a job with the SQL functions of the previous version.
async fn apply_events(pool: &PgPool, organization: Uuid, at: i64) {
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
async fn previous_version_reads_and_writes_after_migration() {
    let all = BillingService::migrations();
    let earlier = all.iter().filter(|migration| migration.version <= PREVIOUS_MIGRATION).cloned().collect();
    let (database, other) = (TestDatabase::create().await, TestDatabase::create().await);
    let pool = database.pool("billing", &Migrator::with_migrations(earlier)).await;
    let organization = Uuid::now_v7();
    for number in 0..50 {
        apply_events(&pool, organization, SUNDAY + number * HOUR).await;
    }
    let before = rollups(&pool).await;
    migrate(&pool, "billing", all).await.unwrap();
    assert_eq!(rollups(&pool).await, before);

    // Later writes give the same rollups as in a database that had all migrations from the start.
    apply_events(&pool, organization, SUNDAY + HOUR).await;
    let fresh = other.pool("billing", all).await;
    for number in 0..50 {
        apply_events(&fresh, organization, SUNDAY + number * HOUR).await;
    }
    apply_events(&fresh, organization, SUNDAY + HOUR).await;
    let after = rollups(&pool).await;
    assert_eq!((after.len(), &after), (before.len(), &rollups(&fresh).await));
    assert_ne!(after, before);

    // A query for one meter reads only the table of that meter.
    for (meter, table, other_table) in
        [(1, "metering_storage_sums", "metering_run_sums"), (2, "metering_run_sums", "metering_storage_sums")]
    {
        let query = format!(
            "explain select s0 from metering_sums where organization_id = '{organization}' and meter = {meter}"
        );
        let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_all(&pool).await.unwrap();
        let plan = plan.join("\n");
        assert!(plan.contains(table) && !plan.contains(other_table), "{plan}");
    }
    for (pool, database) in [(pool, database), (fresh, other)] {
        pool.close().await;
        database.drop().await;
    }
}
