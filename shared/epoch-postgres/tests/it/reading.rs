//! Reading long streams, high versions, large events and grouped loads.

use std::sync::Arc;

use epoch::{
    Aggregate, CommandContext, FastPath, Id, Positions, Repository, Version, Versions,
    fold::StoredEvent,
    repository::PointInTime,
    snapshot::{SnapshotPolicy, SnapshotStore, Snapshots},
    store::{Append, AppendOutcome, Appender, NewEvent, StoreError, Streamer},
    testkit::{Tallied, Tally, TallyCommand, TallyEvent},
};
use epoch_postgres::{PgBlobStates, PgSnapshots, PgStore, testkit::TestDatabase};
use futures::TryStreamExt;
use uuid::Uuid;

use crate::tally_log::{insert, store_on};

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
    let at = tallies.state_at(id, PointInTime::Version(Version::new(65_536))).await.unwrap();
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
    let (store, appender) = PgStore::new(pool.clone(), FastPath::new());
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
            let mut visit = |event: StoredEvent<'_>| {
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
    assert!(matches!(store.append(append).await, Ok(AppendOutcome::Committed { .. })));
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
