//! Reading long streams, high versions, and tables without statistics.

use std::sync::Arc;

use epoch::{
    Aggregate, CommandContext, DomainEvent, Id, Positions, Repository, Version, Versions,
    fold::Recorded,
    local::LocalBus,
    repository::At,
    snapshot::{SnapshotPolicy, SnapshotStore, Snapshots},
    store::{Append, Appended, Appender, NewEvent, StoreError, Streamer},
    testkit::{Tallied, Tally, TallyCommand, TallyEvent},
};
use epoch_postgres::{
    PgBlobStates, PgSnapshots, PgStore,
    testkit::{TestDatabase, hot_queries},
};
use futures::TryStreamExt;
use sqlx::{Connection, PgConnection, PgPool, Row};
use uuid::Uuid;

/// Inserts `events` events into each of the tallies with ids 0, 1, 2, …
async fn insert(pool: &PgPool, aggregates: i64, events: i64) {
    let encoded = TallyEvent::from(Tallied { by: 1 }).encode().unwrap();
    let prepare = "alter table events set unlogged; alter table events set (autovacuum_enabled = false)";
    sqlx::raw_sql(prepare).execute(pool).await.unwrap();
    // Creating the index afterwards is faster, but gives the planner the length of the table.
    let many = aggregates * events > 100_000;
    if many {
        let drop = "alter table events drop constraint events_aggregate_id_aggregate_version_key";
        sqlx::raw_sql(drop).execute(pool).await.unwrap();
    }
    sqlx::query(
        "insert into events (aggregate, aggregate_id, version, event_id, event_name, schema, payload, metadata, \
         occurred_at, recorded_at) select 'tally', id, n, id, 'Tallied', $3, $4, $5::json, n, n \
         from generate_series(1, $2) n, \
         (select lpad(to_hex(a), 32, '0')::uuid as id from generate_series(0, $1 - 1) a offset 0) tallies",
    )
    .bind(aggregates)
    .bind(events)
    .bind(encoded.schema.get().cast_signed())
    .bind(encoded.payload.as_ref())
    .bind(format!("{{\"command_id\":\"{0}\",\"correlation_id\":\"{0}\"}}", Uuid::nil()))
    .execute(pool)
    .await
    .unwrap();
    if many {
        let add = "alter table events add constraint events_aggregate_id_aggregate_version_key \
             unique (aggregate_id, aggregate, version)";
        sqlx::raw_sql(add).execute(pool).await.unwrap();
    }
}

fn store_on(pool: PgPool) -> PgStore {
    let (store, appender) = PgStore::new(pool, LocalBus::new());
    tokio::spawn(appender.run());
    store
}

/// Returns the resident memory of this process in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}

#[tokio::test(flavor = "multi_thread")]
async fn million_events_are_read_in_constant_memory() {
    const EVENTS: u64 = 1_000_000;
    const AGGREGATES: u64 = 20;
    // Other tests of this process allocate memory too.
    const BOUND: u64 = 128 * 1024 * 1024;
    let database = TestDatabase::create().await;
    let store = store_on(database.epoch().await);
    insert(store.pool(), AGGREGATES.cast_signed(), (EVENTS / AGGREGATES).cast_signed()).await;
    let before = resident();
    let (mut read, mut position, mut most) = (0, 0, before);
    let mut events = store.read_all(&["tally"], Positions::all());
    while let Some(event) = events.try_next().await.unwrap() {
        assert!(event.position.get() > position);
        position = event.position.get();
        read += 1;
        if read % 10_000 == 0 {
            most = most.max(resident());
        }
    }
    assert_eq!(read, EVENTS);
    // Loading one aggregate folds the rows as they arrive.
    let loaded = Repository::<Tally, _>::new(store.clone()).load(Uuid::nil()).await.unwrap();
    most = most.max(resident());
    assert_eq!((loaded.version.get(), loaded.state.counts), (EVENTS / AGGREGATES, EVENTS / AGGREGATES));
    assert!(most - before < BOUND, "{} MiB more", (most - before) / 1024 / 1024);
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_events_are_read_in_small_pages() {
    let database = TestDatabase::create().await;
    let store = store_on(database.epoch().await);
    insert(store.pool(), 1, 400).await;
    // 100 MB, which would be one page if pages were bounded by events only.
    sqlx::query("update events set payload = convert_to(repeat('x', 250000), 'UTF8')")
        .execute(store.pool())
        .await
        .unwrap();
    let before = resident();
    let mut most = before;
    let streams = [store.read("tally", Uuid::nil(), Versions::all()), store.read_all(&[], Positions::all())];
    for mut events in streams {
        let mut read = 0;
        while let Some(event) = events.try_next().await.unwrap() {
            read += 1;
            assert_eq!((event.version.get(), event.payload.len()), (read, 250_000));
            most = most.max(resident());
        }
        assert_eq!(read, 400);
    }
    assert!(most - before < 64 * 1024 * 1024, "{} MiB more", (most - before) / 1024 / 1024);
    database.drop().await;
}

/// In another framework, a version column overflowed at 65,535.
#[tokio::test(flavor = "multi_thread")]
async fn aggregate_with_70000_events_loads_and_appends() {
    let database = TestDatabase::create().await;
    let store = store_on(database.epoch().await);
    insert(store.pool(), 1, 70_000).await;
    let snapshot_store = PgSnapshots::new(store.pool().clone());
    let (snapshots, writer) = Snapshots::new(Arc::new(snapshot_store.clone()));
    let writing = tokio::spawn(writer.run());
    let tallies = Repository::<Tally, _>::new(store.clone())
        .with_cache(0)
        .with_states(Arc::new(PgBlobStates::new()))
        .with_snapshots(&snapshots, SnapshotPolicy::Every(1_000));
    let id = Id::<Tally>::new(Uuid::nil());
    for version in 70_001..=70_003 {
        let executed = tallies.execute(id, &TallyCommand::Add(1), &CommandContext::new()).await.unwrap();
        assert_eq!(executed.version.get(), version);
    }
    let loaded = tallies.load(id).await.unwrap();
    assert_eq!((loaded.version.get(), loaded.state.counts), (70_003, 70_003));
    let at = tallies.state_at(id, At::Version(Version::new(65_536))).await.unwrap();
    assert_eq!((at.version.get(), at.state.counts), (65_536, 65_536));
    let events: Vec<_> =
        store.read("tally", id.uuid(), Versions::since(Version::new(65_534)).limit(3)).try_collect().await.unwrap();
    assert_eq!(events.iter().map(|event| event.version.get()).collect::<Vec<_>>(), [65_535, 65_536, 65_537]);
    drop((tallies, snapshots));
    writing.await.unwrap();
    // Written after the first load, which folded the whole stream.
    assert_eq!(snapshot_store.newest(Tally::NAME, id.uuid()).await.unwrap().unwrap().version.get(), 70_000);
    database.drop().await;
}

/// Concurrent loads share one query. Each must return its own stream completely.
#[tokio::test(flavor = "multi_thread")]
async fn grouped_loads_return_their_own_streams() {
    let database = TestDatabase::create().await;
    let pool = database.epoch().await;
    let (store, appender) = PgStore::new(pool.clone(), LocalBus::new());
    let appending = tokio::spawn(appender.run());
    let tallies = Repository::<Tally, _>::new(store.clone()).with_cache(0);
    // Around the limit of a group load (128 events), and several times that.
    let lengths = [0_u64, 1, 2, 127, 128, 129, 300, 1_000];
    let ids: Vec<Vec<Uuid>> = lengths.iter().map(|_| (0..8).map(|_| Uuid::now_v7()).collect()).collect();
    for (length, ids) in lengths.iter().zip(&ids) {
        for id in ids {
            let event = || NewEvent::encode(&TallyEvent::from(Tallied { by: 1 })).unwrap();
            write(&store, *id, (0..*length).map(|_| event()).collect()).await;
        }
    }
    // Two payloads exceed the byte limit of a group load.
    let large = Uuid::now_v7();
    write(&store, large, (0..5).map(|_| long(50_000)).collect()).await;
    for round in 0..20 {
        let loads = ids.iter().zip(lengths).flat_map(|(ids, length)| ids.iter().map(move |id| (*id, length)));
        let loads = loads.map(|(id, length)| {
            let tallies = tallies.clone();
            tokio::spawn(async move {
                let loaded = tallies.load(Id::<Tally>::new(id)).await.unwrap();
                assert_eq!((loaded.version.get(), loaded.state.counts), (length, length));
            })
        });
        let mut loads: Vec<_> = loads.collect();
        let reading = store.clone();
        loads.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            let mut visit = |event: Recorded<'_>| {
                seen.push((event.version.get(), event.payload.len()));
                Ok(())
            };
            reading.visit("tally", large, Versions::since(Version::new(1)), &mut visit).await.unwrap();
            assert_eq!(seen, (2..=5).map(|version| (version, 50_000)).collect::<Vec<_>>());
        }));
        for load in loads {
            load.await.unwrap();
        }
        if round == 10 {
            // A load on a lost connection fails, and the next load uses a new connection.
            let cut = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() \
                 and datname = current_database() and query like '%lateral%'";
            sqlx::query(cut).execute(&pool).await.unwrap();
            let lost = tallies.load(Id::<Tally>::new(ids[1][0])).await;
            assert!(matches!(lost, Err(StoreError::Unavailable { .. })), "{lost:?}");
        }
    }
    // Without the loader task each load reads on its own.
    appending.abort();
    assert!(appending.await.is_err());
    assert_eq!(tallies.load(Id::<Tally>::new(ids[7][0])).await.unwrap().version.get(), 1_000);
    database.drop().await;
}

fn long(bytes: usize) -> NewEvent {
    let mut event = NewEvent::encode(&TallyEvent::from(Tallied { by: 1 })).unwrap();
    event.encoded.payload = vec![0; bytes].into();
    event
}

async fn write(store: &PgStore, id: Uuid, events: Vec<NewEvent>) {
    if events.is_empty() {
        return;
    }
    let (expected, context) = (Version::ZERO, CommandContext::new());
    let append = Append { aggregate: "tally", aggregate_id: id, expected, previous: None, events, context };
    assert!(matches!(store.append(append).await, Ok(Appended::Committed { .. })));
}

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

/// A comparison of a copy with the log must visit every stream, including those between streams of another aggregate.
#[tokio::test]
async fn pages_of_stream_ends_cover_every_stream() {
    let database = TestDatabase::create().await;
    let pool = database.epoch().await;
    insert(&pool, 8, 3).await;
    let others = "update events set aggregate = 'other' where aggregate_id in (lpad('3', 32, '0')::uuid, lpad('4', 32, '0')::uuid)";
    sqlx::raw_sql(others).execute(&pool).await.unwrap();
    let store = store_on(pool);
    let (mut after, mut pages, mut found) = (Uuid::nil(), 0, Vec::new());
    loop {
        let page = store.ends("tally", after, 2).await.unwrap();
        (pages, after) = (pages + 1, page.next.unwrap_or_default());
        found.extend(page.ends.iter().map(|end| (end.id.as_u128(), end.version.get(), end.recorded_at.as_millis())));
        if page.next.is_none() {
            break;
        }
    }
    // The nil id is before all pages. Ids 3 and 4 belong to another aggregate and fill one page.
    assert_eq!(found, [1, 2, 5, 6, 7].map(|id| (id, 3, 3)));
    assert_eq!(pages, 4);
    let other = store.ends("other", Uuid::nil(), 100).await.unwrap();
    assert_eq!((other.ends.len(), other.next), (2, None));
    database.drop().await;
}

/// Another framework was 18 times slower until its table was first analyzed. The test measures the blocks that a query reads,
/// and not its plan, also for plans made while the table was empty.
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
