//! The plans of hot queries, and the blocks that they read.

use epoch_postgres::testkit::{TestDatabase, hot_queries};
use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;

use crate::tally_log::insert;

const ID: &str = "'00000000-0000-0000-0000-000000000007'";

/// Returns arguments that select rows in the middle of the table, with a limit.
fn arguments(query: &str) -> String {
    match query {
        "visit" => format!("{ID}, 'tally', 2500, 9223372036854775807, 50"),
        "visit_many" => {
            format!("array[{ID}::uuid], '{{tally}}', '{{2500}}', '{{9223372036854775807}}', 50, 64000")
        }
        "stream" => format!("{ID}, 'tally', 2500, 9223372036854775807, 50, 4000000"),
        "stream_all" => "25000, 9223372036854775807, '{tally}', 50, 4000000".to_owned(),
        "end" => String::new(),
        "ends" => format!("'tally', '{}', 8", Uuid::nil()),
        "find_command" => format!("{ID}, '\\x00'"),
        "get_state" | "delete_state" | "newest_snapshot" | "discard_snapshot" => format!("{ID}, 'tally'"),
        "newest_snapshot_and_since" => format!("{ID}, 'tally', 50"),
        "put_state" => format!("{ID}, 'tally', 3, 1, '\\x00'"),
        "save_snapshots" => format!("array[{ID}::uuid], '{{tally}}', '{{3}}', '{{1}}', array['\\x00'::bytea]"),
        other => panic!("no arguments for {other}"),
    }
}

/// Another framework was 18 times slower until its table was first analyzed. The test measures the blocks that a query
/// reads, and not its plan, also for plans made while the table was empty.
#[tokio::test(flavor = "multi_thread")]
async fn hot_queries_read_few_blocks_without_statistics() {
    let database = TestDatabase::create().await;
    let pool = database.epoch().await;
    let tables = "alter table events set (autovacuum_enabled = false); alter table states set (autovacuum_enabled = false); \
         alter table snapshots set (autovacuum_enabled = false); alter table commands set (autovacuum_enabled = false)";
    sqlx::raw_sql(tables).execute(&pool).await.unwrap();
    let mut planned = Vec::new();
    for mode in ["force_custom_plan", "force_generic_plan", "auto"] {
        let mut connection = PgConnection::connect_with(&pool.connect_options()).await.unwrap();
        run(&mut connection, format!("set plan_cache_mode = {mode}")).await;
        for (name, query) in hot_queries() {
            run(&mut connection, format!("prepare q_{name} as {query}")).await;
            for _ in 0..6 {
                run(&mut connection, format!("begin; {}; rollback", execute(name))).await;
            }
        }
        planned.push((mode, connection));
    }
    insert(&pool, 10, 5_000).await;
    let others = "insert into states select lpad(to_hex(n), 32, '0')::uuid, 'tally', 1, 1, '\\x00' from generate_series(1, 50000) n; \
         insert into snapshots select lpad(to_hex(n), 32, '0')::uuid, 'tally', 1, 1, '\\x00' from generate_series(1, 50000) n; \
         insert into commands select lpad(to_hex(n), 32, '0')::uuid, '\\x00', lpad('1', 32, '0')::uuid, 1, 1 from generate_series(1, 50000) n";
    sqlx::raw_sql(others).execute(&pool).await.unwrap();
    for (mode, mut connection) in planned {
        for (name, _) in hot_queries() {
            // A first run, so that reads of the system catalog are not counted.
            run(&mut connection, format!("begin; {}; rollback", execute(name))).await;
            let explain = format!("explain (analyze, buffers, format json) {}", execute(name));
            let row = sqlx::query(sqlx::AssertSqlSafe(explain)).fetch_one(&mut connection).await.unwrap();
            let plan = row.get::<sqlx::types::Json<serde_json::Value>, _>(0).0;
            let blocks = |kind: &str| plan[0]["Plan"][kind].as_u64().unwrap();
            let read = blocks("Shared Hit Blocks") + blocks("Shared Read Blocks");
            assert!(read > 0, "{name} read nothing: {plan}");
            assert!(read < 120, "{name} with {mode} read {read} blocks: {plan}");
        }
    }
    let analyzed: i64 = sqlx::query_scalar(
        "select count(*) from pg_class where relname in ('events', 'states', 'snapshots') and reltuples >= 0",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(analyzed, 0, "the tables have no statistics");
    database.drop().await;
}

/// A sort would read the whole stream before it returns the first event, even if the stream is most of the table.
#[tokio::test(flavor = "multi_thread")]
async fn long_stream_is_read_in_index_order() {
    let database = TestDatabase::create().await;
    let pool = database.epoch().await;
    insert(&pool, 3, 5_000).await;
    let mut connection = PgConnection::connect_with(&pool.connect_options()).await.unwrap();
    run(&mut connection, "analyze events".to_owned()).await;
    let (_, visit) = hot_queries().into_iter().find(|(name, _)| *name == "visit").unwrap();
    for mode in ["force_custom_plan", "force_generic_plan"] {
        run(&mut connection, format!("set plan_cache_mode = {mode}; prepare visit as {visit}")).await;
        let id = "'00000000-0000-0000-0000-000000000002'";
        let explain =
            format!("explain (analyze, format json) execute visit({id}, 'tally', 128, 9223372036854775807, null)");
        let row = sqlx::query(sqlx::AssertSqlSafe(explain)).fetch_one(&mut connection).await.unwrap();
        let plan = row.get::<sqlx::types::Json<serde_json::Value>, _>(0).0;
        assert_eq!(plan[0]["Plan"]["Actual Rows"].as_f64(), Some(4_872.0), "{plan}");
        let plan = plan.to_string();
        assert!(plan.contains("Index Scan") && !plan.contains("Sort") && !plan.contains("Seq Scan"), "{mode}: {plan}");
        run(&mut connection, "deallocate visit".to_owned()).await;
    }
    database.drop().await;
}

fn execute(name: &str) -> String {
    let arguments = arguments(name);
    if arguments.is_empty() { format!("execute q_{name}") } else { format!("execute q_{name}({arguments})") }
}

async fn run(connection: &mut PgConnection, statement: String) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement.clone()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{statement}: {error}"));
}
