//! Loads from snapshots: one statement reads the snapshot and the later events, and the log stays the authority.

use std::sync::Arc;

use bytes::Bytes;
use epoch::{
    Aggregate, CommandContext, FastPath, Repository, Version,
    snapshot::{Snapshot, SnapshotPolicy, SnapshotStore, Snapshots},
    store::{Append, AppendOutcome, Appender, NewEvent},
    testkit::{Tallied, Tally, TallyEvent, snapshot_store_conformance},
};
use epoch_postgres::{PgSnapshots, PgStore, testkit::TestDatabase};
use sqlx::{PgPool, Row, postgres::PgPoolOptions};
use uuid::Uuid;

/// A total that only a snapshot has, so that a test can see that the snapshot was used.
const MARK: i64 = 1_000_000;

fn marked(id: Uuid, version: u64) -> Snapshot {
    let state = serde_json::to_vec(&Tally { total: MARK, counts: version }).unwrap();
    let (version, schema) = (Version::new(version), Tally::STATE_SCHEMA);
    Snapshot { aggregate: Tally::NAME, id, version, schema, state: Bytes::from(state) }
}

fn event() -> NewEvent {
    NewEvent::encode(&TallyEvent::from(Tallied { by: 1 })).unwrap()
}

/// Creates an aggregate for each length, with that many events.
async fn streams(pool: &PgPool, lengths: &[i64]) -> Vec<Uuid> {
    streams_of(pool, lengths.iter().map(|&events| vec![event(); usize::try_from(events).unwrap()]).collect()).await
}

async fn streams_of(pool: &PgPool, streams: Vec<Vec<NewEvent>>) -> Vec<Uuid> {
    let (store, appender) = PgStore::new(pool.clone(), FastPath::new());
    let appending = tokio::spawn(appender.run());
    let mut ids = Vec::new();
    for mut events in streams {
        let id = Uuid::now_v7();
        ids.push(id);
        for event in &mut events {
            event.event_id = Uuid::now_v7();
        }
        let (expected, context) = (Version::ZERO, CommandContext::new());
        let append = Append { aggregate: Tally::NAME, aggregate_id: id, expected, previous: None, events, context };
        assert!(matches!(store.append(append).await, Ok(AppendOutcome::Committed { .. })));
    }
    drop(store);
    appending.await.unwrap();
    ids
}

/// Opens a repository with one connection, without group loads and without a snapshot writer.
async fn single_connection(database: &TestDatabase) -> (PgPool, Repository<Tally, PgStore>) {
    let options = PgPoolOptions::new().max_connections(1);
    let pool = epoch_postgres::connect(options, database.options(), "test").await.unwrap();
    let (store, _) = PgStore::new(pool.clone(), FastPath::new());
    let (snapshots, _) = Snapshots::new(Arc::new(PgSnapshots::new(pool.clone())));
    let tallies = Repository::new(store).with_cache(0).with_snapshots(&snapshots, SnapshotPolicy::Every(1_000_000));
    (pool, tallies)
}

/// Counts the prepared statements of the connection.
async fn prepared(pool: &PgPool) -> i64 {
    let count = "select count(*) from pg_prepared_statements";
    sqlx::raw_sql(count).fetch_one(pool).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn pg_snapshots_pass_conformance() {
    let database = TestDatabase::create().await;
    snapshot_store_conformance(&PgSnapshots::new(database.epoch().await)).await.unwrap();
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn load_from_snapshot_is_one_statement() {
    let database = TestDatabase::create().await;
    let setup = database.epoch().await;
    let ids = streams(&setup, &[40]).await;
    PgSnapshots::new(setup.clone()).save(&[marked(ids[0], 30)]).await.unwrap();
    let (pool, tallies) = single_connection(&database).await;
    let loaded = tallies.load(ids[0]).await.unwrap();
    assert_eq!((loaded.state.total, loaded.version.get()), (MARK + 10, 40));
    assert_eq!(prepared(&pool).await, 1, "statements");
    database.drop().await;
}

/// The events read with a snapshot are bounded; the load is not.
#[tokio::test(flavor = "multi_thread")]
async fn load_from_snapshot_reads_to_end_of_stream() {
    let database = TestDatabase::create().await;
    let setup = database.epoch().await;
    let lengths = [1, 2, 126, 127, 128, 129, 130, 300];
    let ids = streams(&setup, &lengths).await;
    let snapshots = PgSnapshots::new(setup.clone());
    let (_, tallies) = single_connection(&database).await;
    for (&id, &events) in ids.iter().zip(&lengths) {
        snapshots.save(&[marked(id, 1)]).await.unwrap();
        let loaded = tallies.load(id).await.unwrap();
        assert_eq!((loaded.state.total, loaded.version.get()), (MARK + events - 1, events.unsigned_abs()), "{events}");
        let (snapshot, since) = snapshots.newest_with_tail(Tally::NAME, id).await.unwrap().unwrap();
        assert_eq!(snapshot, marked(id, 1));
        let versions: Vec<u64> = since.events.iter().map(|event| event.version.get()).collect();
        let first: Vec<u64> = (1..=events.unsigned_abs().min(128)).collect();
        assert_eq!((versions, since.complete), (first, events < 128), "of {events}");
    }
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_read_with_snapshot_are_bounded() {
    let database = TestDatabase::create().await;
    let setup = database.epoch().await;
    let mut long = event();
    long.encoded.payload = vec![0; 40_000].into();
    let ids = streams_of(&setup, vec![vec![long; 5]]).await;
    let snapshots = PgSnapshots::new(setup);
    snapshots.save(&[marked(ids[0], 1)]).await.unwrap();
    let (_, since) = snapshots.newest_with_tail(Tally::NAME, ids[0]).await.unwrap().unwrap();
    assert_eq!((since.events.len(), since.complete), (2, false));
    database.drop().await;
}

/// After a restore of the log to an earlier time, a snapshot may have a version that the log does not have.
#[tokio::test(flavor = "multi_thread")]
async fn snapshot_beyond_log_is_ignored() {
    let database = TestDatabase::create().await;
    let setup = database.epoch().await;
    let ids = streams(&setup, &[5, 200]).await;
    let snapshots = PgSnapshots::new(setup.clone());
    let (_, tallies) = single_connection(&database).await;
    for (&id, events) in ids.iter().zip([5_i64, 200]) {
        for beyond in [1, 150] {
            snapshots.discard(Tally::NAME, id).await.unwrap();
            snapshots.save(&[marked(id, events.unsigned_abs() + beyond)]).await.unwrap();
            let loaded = tallies.load(id).await.unwrap();
            assert_eq!((loaded.state.total, loaded.version.get()), (events, events.unsigned_abs()));
        }
    }
    database.drop().await;
}
