//! The SQL functions of `sql/functions`, applied after the migrations.

use std::{collections::BTreeSet, fs, path::Path};

use epoch_postgres::{
    migrate,
    testkit::{TestDatabase, function_set, migrate_without_functions},
};
use sqlx::{PgPool, migrate::Migrator};

/// Returns the definitions of all functions in the schema, ordered.
async fn definitions(pool: &PgPool) -> Vec<String> {
    let query = "select d.definition from ( \
             select pg_get_functiondef(p.oid) as definition from pg_proc p where p.pronamespace = 'test'::regnamespace \
         ) d order by d.definition collate \"C\"";
    sqlx::query_scalar(query).fetch_all(pool).await.unwrap()
}

/// Returns the transactions that last wrote the functions.
async fn writers(pool: &PgPool) -> Vec<String> {
    let query = "select xmin::text from pg_proc where pronamespace = 'test'::regnamespace order by oid";
    sqlx::query_scalar(query).fetch_all(pool).await.unwrap()
}

async fn drop_functions(pool: &PgPool) {
    let query = "select format('drop function %s', p.oid::regprocedure) from pg_proc p \
         where p.pronamespace = 'test'::regnamespace";
    let drops: Vec<String> = sqlx::query_scalar(query).fetch_all(pool).await.unwrap();
    assert_eq!(drops.len(), function_set().texts.len());
    sqlx::raw_sql(sqlx::AssertSqlSafe(drops.join("; "))).execute(pool).await.unwrap();
}

async fn apply(pool: &PgPool) {
    migrate(pool, "test", &Migrator::DEFAULT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn migrated_schema_has_exactly_the_functions_of_the_files() {
    let database = TestDatabase::create().await;
    let pool = database.empty_pool("test").await;
    migrate_without_functions(&pool, "test").await.unwrap();
    let migrated = definitions(&pool).await;
    apply(&pool).await;
    let applied = definitions(&pool).await;
    // Every function of the migrations has a file, and every file replaces a function of the migrations.
    let signature = |definition: &String| definition.lines().next().unwrap().to_owned();
    assert_eq!(applied.iter().map(signature).collect::<BTreeSet<_>>(), migrated.iter().map(signature).collect());
    // The files alone define the same functions.
    drop_functions(&pool).await;
    sqlx::query("delete from epoch_functions").execute(&pool).await.unwrap();
    apply(&pool).await;
    assert_eq!(definitions(&pool).await, applied);
    for text in function_set().texts {
        let body = text.split("$$").nth(1).unwrap();
        let count = applied.iter().filter(|definition| definition.contains(body)).count();
        assert_eq!(count, 1, "{text}");
    }
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_are_not_rewritten_when_unchanged() {
    let database = TestDatabase::create().await;
    let pool = database.epoch().await;
    let before = writers(&pool).await;
    apply(&pool).await;
    assert_eq!(writers(&pool).await, before);
    // Another text of the same revision is replaced.
    sqlx::query("update epoch_functions set fingerprint = fingerprint + 1").execute(&pool).await.unwrap();
    apply(&pool).await;
    assert_ne!(writers(&pool).await, before);
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_process_keeps_the_functions_of_a_newer_one() {
    let database = TestDatabase::create().await;
    let pool = database.epoch().await;
    let newer = "update epoch_functions set revision = revision + 1, fingerprint = 0";
    sqlx::query(newer).execute(&pool).await.unwrap();
    let before = writers(&pool).await;
    apply(&pool).await;
    assert_eq!(writers(&pool).await, before);
    let older = "update epoch_functions set revision = 0";
    sqlx::query(older).execute(&pool).await.unwrap();
    apply(&pool).await;
    assert_ne!(writers(&pool).await, before);
    let revision: i64 = sqlx::query_scalar("select revision from epoch_functions").fetch_one(&pool).await.unwrap();
    assert_eq!(revision, function_set().revision);
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_starts_apply_functions_once() {
    let database = TestDatabase::create().await;
    let pool = database.empty_pool("test").await;
    futures::future::join_all((0..4).map(|_| apply(&pool))).await;
    let writers: BTreeSet<String> = writers(&pool).await.into_iter().collect();
    assert_eq!(writers.len(), 1, "one transaction has written all functions");
    database.drop().await;
}

#[test]
fn every_function_file_is_applied() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/functions");
    let mut files: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
    let mut applied: Vec<String> = function_set().texts.iter().map(|text| (*text).to_owned()).collect();
    files.sort_unstable();
    applied.sort_unstable();
    assert_eq!(files, applied);
}

/// A changed file needs a new revision, or a process of the earlier release would restore its own text at its next
/// start.
#[test]
fn changed_functions_have_a_new_revision() {
    let set = function_set();
    assert_eq!(
        (set.revision, set.fingerprint),
        (2, 3_102_674_144_080_968_795),
        "increment REVISION, and update this test"
    );
}
