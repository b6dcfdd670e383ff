//! Query plans of usage statements: one statement for a response, and an index for each of its parts.

use billing::BillingService;
use epoch::Timestamp;
use epoch_postgres::testkit::TestDatabase;
use rating::{
    calendar::span::{Span, Window},
    sharing::rule::SharingRule,
};
use service_host::service::Service;
use sqlx::{PgConnection, Row, postgres::PgPoolOptions};
use usage::{
    page::Page,
    queries::{
        file_levels::STATEMENT as FILE_STATEMENT,
        groups::{GroupBy, groups},
        usage::usage,
        usage_query::UsageQuery,
        usage_statement::STATEMENT,
    },
    rollup::ranges::STATEMENT as ROLLUP_STATEMENT,
    sharing::shared_files,
};
use uuid::Uuid;

use crate::{
    support::DAY,
    usage_queries::{YEAR, june, load_year},
};

/// Parameter types of the rollup statement, which are the first parameters of the other statements.
const ROLLUP_TYPES: &str = "uuid, bigint[], smallint[], smallint[], smallint[], bigint[], bigint[], bigint[], bigint[], integer[], smallint[], \
    smallint[], bigint[], bigint[], integer[], boolean[], bigint[], boolean, smallint[]";

/// Further parameter types of `shared_files::STATEMENT`.
const SHARED_FILES_TYPES: &str = "bigint, bigint, bigint, uuid[], uuid[], bigint, bigint, bigint, boolean";

/// Arguments for the rollups of both meters: of days, of hours and of events within an hour.
fn rollup_arguments(organization: Uuid, first: i64, last: i64) -> String {
    format!(
        "'{organization}', '{{{first}}}', '{{1}}', '{{0}}', '{{1}}', '{{86400000}}', '{{0}}', '{{20240}}', '{{20269}}', '{{null}}', \
         '{{1,2}}', '{{0,1}}', '{{{first},{first}}}', '{{{last},{last}}}', '{{null,null}}', '{{false,false}}', \
         '{{485760,485784}}', true, '{{0,1}}'"
    )
}

/// Returns the generic plan of a statement. It must read no table sequentially and call no function for each row.
async fn index_plan(connection: &mut PgConnection, types: &str, statement: &str, arguments: &str) -> String {
    let plan = explain(connection, types, statement, "costs off", arguments).await;
    assert!(!plan.contains("Seq Scan") && !plan.contains("Function Scan on metering_file"), "{plan}");
    plan
}

async fn explain(
    connection: &mut PgConnection,
    types: &str,
    statement: &str,
    options: &str,
    arguments: &str,
) -> String {
    // The generic plan serves all later executions. Sequential scans are disabled because they look cheap on small tables.
    let prepare = format!(
        "set plan_cache_mode = force_generic_plan; set enable_seqscan = off; prepare explained ({types}) as {statement}"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(prepare)).execute(&mut *connection).await.unwrap();
    let explain = format!("explain ({options}) execute explained ({arguments})");
    let lines: Vec<String> =
        sqlx::query_scalar(sqlx::AssertSqlSafe(explain)).fetch_all(&mut *connection).await.unwrap();
    sqlx::raw_sql("deallocate explained").execute(connection).await.unwrap();
    lines.join("\n")
}

#[tokio::test]
async fn usage_is_read_in_one_statement() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    let organization = load_year(&pool).await;
    let (window, spans) = june("Europe/Madrid");
    let listed = Page { after: None, limit: 200 };
    // The pool has one connection, which has prepared each statement that was sent.
    let single = PgPoolOptions::new().max_connections(1);
    let single = epoch_postgres::connect(single, database.options(), "billing").await.unwrap();
    let usage_query = UsageQuery { organization, window, known_at: None };
    let answer = usage(&single, usage_query, SharingRule::Split, &spans, listed, listed).await.unwrap();
    let sent = sqlx::raw_sql("select count(*) from pg_prepared_statements").fetch_one(&single).await.unwrap();
    let sent: i64 = sent.get(0);
    assert!(answer.totals.byte_ms[0] > 0 && answer.totals.users.len() > 3, "{:?}", answer.totals);
    assert!(answer.files.items.len() > 20 && answer.files.items.iter().any(|file| !file.jobs.is_empty()));
    assert!(answer.jobs.items.len() > 3 && answer.totals.storage_provisional, "{:?}", answer.jobs);
    assert_eq!(sent, 1, "statements");
    // Groups by user and other groups that rollups hold take one statement each, too.
    let kinds = [(GroupBy::User, 2), (GroupBy::JobConfiguration, 2), (GroupBy::MachineType, 3), (GroupBy::Job, 4)];
    for (by, statements) in kinds {
        let rows = groups(&single, usage_query, SharingRule::Split, by, &spans, listed).await.unwrap();
        assert!(!rows.items.is_empty(), "{by:?}");
        let sent = sqlx::raw_sql("select count(*) from pg_prepared_statements").fetch_one(&single).await.unwrap();
        assert_eq!(sent.get::<i64, _>(0), statements, "{by:?}");
    }
    // All executions use the generic plan, so no later plan depends on the first parameters.
    for month in 0..12 {
        let period = [month * 30, month * 30 + 30].map(|day| Timestamp::from_millis(YEAR + day * DAY));
        let window =
            Window { period: Span::new(period[0], period[1]), as_of: Timestamp::from_millis(YEAR + 400 * DAY) };
        let usage_query = UsageQuery { organization, window, known_at: None };
        let none = Page { after: None, limit: 0 };
        usage(&single, usage_query, SharingRule::Split, &[window.period], none, none).await.unwrap();
    }
    let plans = "select generic_plans, custom_plans from pg_prepared_statements where statement = $1";
    let plans: (i64, i64) = sqlx::query_as(plans).bind(STATEMENT).fetch_one(&single).await.unwrap();
    assert_eq!(plans, (13, 0));
    single.close().await;
    pool.close().await;
    database.drop().await;
}

/// The organization has 60 links in all.
#[tokio::test]
async fn links_are_read_in_bulk_only_when_few() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    let organization = load_year(&pool).await;
    let mut connection = pool.acquire().await.unwrap();
    let (first, last) = (YEAR + 151 * DAY, YEAR + 180 * DAY);
    for (many_links, at_once) in [(60, false), (61, true)] {
        let rollups = rollup_arguments(organization, first, last);
        let arguments = format!("{rollups}, {first}, {last}, null, '{{}}', null, 1001, 1001, {many_links}, true");
        let types = format!("{ROLLUP_TYPES}, {SHARED_FILES_TYPES}");
        let plan = explain(&mut connection, &types, shared_files::STATEMENT, "analyze, timing off", &arguments).await;
        let joined = plan.lines().find(|line| line.contains("Full Join")).unwrap();
        assert_eq!(!joined.contains("never executed"), at_once, "{plan}");
    }
    drop(connection);
    pool.close().await;
    database.drop().await;
}

#[tokio::test]
async fn shared_files_are_read_from_indexes() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    let organization = load_year(&pool).await;
    let mut connection = pool.acquire().await.unwrap();
    let (first, last) = (YEAR + 151 * DAY, YEAR + 180 * DAY);
    let rollups = rollup_arguments(organization, first, last);
    let arguments =
        format!("{rollups}, {first}, {last}, null, '{{}}', null, 200001, 200001, 5000, true, '{}', 201", Uuid::nil());
    let types = format!("{ROLLUP_TYPES}, {SHARED_FILES_TYPES}, uuid, bigint");
    let plan = index_plan(&mut connection, &types, shared_files::WITH_JOBS, &arguments).await;
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
async fn file_rollups_are_read_from_indexes() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    let organization = load_year(&pool).await;
    let mut connection = pool.acquire().await.unwrap();
    let types = "uuid, uuid[], bigint, bigint, bigint, bigint[], smallint[], bigint[], bigint[], bigint[], bigint[], bigint[], \
        bigint[], boolean[], bigint[]";
    let (first, last, file) = (YEAR + 151 * DAY, YEAR + 180 * DAY, Uuid::nil());
    let arguments = format!(
        "'{organization}', '{{{file}}}', {last}, null, 200001, '{{{first}}}', '{{1}}', '{{86400000}}', '{{0}}', '{{20240}}', '{{20269}}', \
         '{{{first}}}', '{{{last}}}', '{{false}}', '{{485760,485784}}'"
    );
    let plan = index_plan(&mut connection, types, FILE_STATEMENT, &arguments).await;
    for index in ["metering_file_sums_pkey", "Index Only Scan using storage_changes_of_files on"] {
        assert!(plan.contains(index), "{index} is not used:\n{plan}");
    }
    drop(connection);
    pool.close().await;
    database.drop().await;
}

#[tokio::test]
async fn each_usage_part_is_read_from_its_index() {
    let database = TestDatabase::create().await;
    let pool = database.pool("billing", BillingService::migrations()).await;
    let organization = load_year(&pool).await;
    let mut connection = pool.acquire().await.unwrap();
    let types =
        format!("{ROLLUP_TYPES}, bigint, bigint, bigint, uuid, bigint, uuid[], bigint, bigint, boolean, uuid, bigint");
    let (first, last, nil) = (YEAR + 151 * DAY, YEAR + 180 * DAY, Uuid::nil());
    let rollups = rollup_arguments(organization, first, last);
    let arguments =
        format!("{rollups}, {first}, {last}, null, '{nil}', 201, '{{}}', 10001, 200001, true, '{nil}', 201");
    let plan = index_plan(&mut connection, &types, STATEMENT, &arguments).await;
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
        assert!(plan.contains(index), "{index} is not used:\n{plan}");
    }
    let rollup_plan = index_plan(&mut connection, ROLLUP_TYPES, ROLLUP_STATEMENT, &rollups).await;
    for index in [
        "metering_storage_sums_pkey",
        "metering_run_sums_pkey",
        "storage_changes_by_time",
        "runs_of_period",
        "runs_by_end",
    ] {
        assert!(rollup_plan.contains(index), "{index} is not used:\n{rollup_plan}");
    }
    drop(connection);
    pool.close().await;
    database.drop().await;
}
