//! States outside the log: in a state store, as snapshots, in the cache; and states at points in time.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use epoch::{
    Aggregate, CommandContext, Id, Repository, Timestamp, Version, VersionedState,
    memory::{MemorySnapshotStore, MemoryStateStore, MemoryStore},
    repository::PointInTime,
    snapshot::{Snapshot, SnapshotPolicy, SnapshotStore, Snapshots},
    state::Change,
    store::{StoreError, Streamer},
    testkit::{Tally, TallyCommand, snapshot_store_conformance, state_store_conformance},
};
use futures::TryStreamExt;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use proptest::prelude::*;
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;

fn context() -> CommandContext {
    CommandContext::new()
}

fn plain(store: &MemoryStore) -> Repository<Tally, MemoryStore> {
    Repository::new(store.clone()).with_cache(0)
}

#[tokio::test]
async fn memory_state_store_conforms() {
    state_store_conformance(&MemoryStore::new(), Arc::new(MemoryStateStore::new())).await.unwrap();
}

#[tokio::test]
async fn memory_snapshot_store_conforms() {
    snapshot_store_conformance(&MemorySnapshotStore::new()).await.unwrap();
}

/// An in-memory snapshot store that counts its calls, saves only with a permit, and can fail.
#[derive(Clone)]
struct ControlledSnapshots {
    inner: MemorySnapshotStore,
    saved: Arc<watch::Sender<u64>>,
    discarded: Arc<watch::Sender<u64>>,
    may_save: Arc<Semaphore>,
    failing: Arc<Mutex<bool>>,
}

impl ControlledSnapshots {
    fn new() -> Self {
        Self {
            inner: MemorySnapshotStore::new(),
            saved: Arc::new(watch::channel(0).0),
            discarded: Arc::new(watch::channel(0).0),
            may_save: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            failing: Arc::default(),
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        let failing = *self.failing.lock().unwrap();
        if failing { Err(StoreError::Unavailable { detail: "requested by the test".into() }) } else { Ok(()) }
    }

    async fn version(&self, id: Uuid) -> Option<u64> {
        self.inner.newest(Tally::NAME, id).await.unwrap().map(|snapshot| snapshot.version.get())
    }

    /// Waits until `number` snapshots have been saved in total.
    async fn saved(&self, number: u64) {
        self.saved.subscribe().wait_for(|saved| *saved >= number).await.unwrap();
    }
}

#[async_trait]
impl SnapshotStore for ControlledSnapshots {
    async fn newest(&self, aggregate: &'static str, id: Uuid) -> Result<Option<Snapshot>, StoreError> {
        self.check()?;
        self.inner.newest(aggregate, id).await
    }

    async fn save(&self, snapshots: &[Snapshot]) -> Result<(), StoreError> {
        let _permit = self.may_save.acquire().await.unwrap();
        let result = match self.check() {
            Ok(()) => self.inner.save(snapshots).await,
            error => error,
        };
        self.saved.send_modify(|saved| *saved += snapshots.len() as u64);
        result
    }

    async fn discard(&self, aggregate: &'static str, id: Uuid) -> Result<(), StoreError> {
        self.inner.discard(aggregate, id).await?;
        self.discarded.send_modify(|discarded| *discarded += 1);
        Ok(())
    }
}

fn with_snapshots(
    store: &MemoryStore,
    policy: SnapshotPolicy,
) -> (ControlledSnapshots, Repository<Tally, MemoryStore>) {
    let controlled = ControlledSnapshots::new();
    let (snapshots, writer) = Snapshots::new(Arc::new(controlled.clone()));
    tokio::spawn(writer.run());
    (controlled, Repository::new(store.clone()).with_cache(0).with_snapshots(&snapshots, policy))
}

fn forged(id: Uuid, version: u64, schema: u32, state: &str) -> Snapshot {
    let state = state.to_owned().into();
    Snapshot { aggregate: Tally::NAME, id, version: Version::new(version), schema, state }
}

#[tokio::test]
async fn snapshots_follow_policy_and_shorten_folds() {
    let store = MemoryStore::new();
    let (snapshots, tallies) = with_snapshots(&store, SnapshotPolicy::Every(10));
    let id = Uuid::now_v7();
    for _ in 0..9 {
        tallies.execute(id, &TallyCommand::Add(1), &context()).await.unwrap();
    }
    // The tenth event makes the snapshot due.
    tallies.execute(id, &TallyCommand::Add(1), &context()).await.unwrap();
    snapshots.saved(1).await;
    assert_eq!(snapshots.version(id).await, Some(10));
    for _ in 0..5 {
        tallies.execute(id, &TallyCommand::Add(1), &context()).await.unwrap();
    }
    assert_eq!(tallies.load(id).await.unwrap().state.total, 15);
    assert_eq!(
        (snapshots.version(id).await, *snapshots.saved.borrow()),
        (Some(10), 1),
        "no further snapshot before it is due"
    );
    // A load from a snapshot with a distinguishable state shows that it is used.
    snapshots.inner.save(&[forged(id, 10, 1, r#"{"total":1000,"counts":10}"#)]).await.unwrap();
    assert_eq!(tallies.load(id).await.unwrap().state.total, 1005, "five events folded onto the snapshot");
    let (never, without) = with_snapshots(&store, SnapshotPolicy::Never);
    without.execute(id, &TallyCommand::Add(1), &context()).await.unwrap();
    never.inner.save(&[forged(id, 10, 1, r#"{"total":1000,"counts":10}"#)]).await.unwrap();
    assert_eq!(without.load(id).await.unwrap().state.total, 16, "the policy `Never` does not read snapshots");
}

#[tokio::test]
async fn unusable_snapshot_is_ignored_and_replaced() {
    let store = MemoryStore::new();
    let (snapshots, tallies) = with_snapshots(&store, SnapshotPolicy::Every(4));
    let id = Uuid::now_v7();
    for _ in 0..6 {
        plain(&store).execute(id, &TallyCommand::Add(1), &context()).await.unwrap();
    }
    let right = Tally { total: 6, counts: 6 };
    let mut saved = 0;
    for (case, snapshot) in [
        ("not JSON", forged(id, 4, 1, "{")),
        ("another shape", forged(id, 4, 1, r#"{"sum":4}"#)),
        ("another schema", forged(id, 4, 2, r#"{"total":400,"counts":4}"#)),
        ("the newest version, another schema", forged(id, 6, 0, r#"{"total":400,"counts":4}"#)),
    ] {
        snapshots.inner.discard(Tally::NAME, id).await.unwrap();
        snapshots.inner.save(&[snapshot]).await.unwrap();
        assert_eq!(*tallies.load(id).await.unwrap().state, right, "{case}");
        saved += 1;
        snapshots.saved(saved).await;
        let replaced = snapshots.inner.newest(Tally::NAME, id).await.unwrap().unwrap();
        assert_eq!((replaced.version.get(), replaced.schema), (6, 1), "{case}");
    }
    // A snapshot of a version that the log does not contain is discarded.
    snapshots.inner.save(&[forged(id, 7, 1, r#"{"total":700,"counts":7}"#)]).await.unwrap();
    let executed = tallies.execute(id, &TallyCommand::ThrowAway, &context()).await.unwrap();
    assert_eq!(executed.version.get(), 7, "no permanent conflict with a version that does not exist");
    snapshots.discarded.subscribe().wait_for(|discarded| *discarded >= 1).await.unwrap();
    assert_eq!(snapshots.version(id).await, None);
}

#[tokio::test]
async fn commands_neither_wait_for_nor_need_snapshots() {
    let store = MemoryStore::new();
    let (snapshots, tallies) = with_snapshots(&store, SnapshotPolicy::EveryCommit);
    snapshots.may_save.forget_permits(Semaphore::MAX_PERMITS);
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let ids: Vec<Uuid> = (0..3_000).map(|_| Uuid::now_v7()).collect();
    {
        let _recording = metrics::set_default_local_recorder(&recorder);
        // Without a permit the writer blocks, so the queue fills up and drops requests.
        for id in &ids {
            tallies.create(*id, &TallyCommand::Add(1), &context()).await.unwrap();
        }
    }
    let counted = counted(&snapshotter.snapshot().into_vec(), "epoch_snapshots_total");
    let [queued, shed] = ["queued", "shed"].map(|result| counted.get(result).copied().unwrap_or(0));
    assert_eq!(queued + shed, 3_000);
    assert!(shed >= 1_900, "the queue is bounded: {queued} queued");
    snapshots.may_save.add_permits(1_000_000);
    snapshots.saved(queued).await;
    *snapshots.failing.lock().unwrap() = true;
    for id in &ids[..10] {
        assert_eq!(tallies.load(*id).await.unwrap().state.total, 1, "loads succeed when snapshots cannot be read");
    }
}

type RecordedMetrics =
    Vec<(metrics_util::CompositeKey, Option<metrics::Unit>, Option<metrics::SharedString>, DebugValue)>;

fn counted(recorded: &RecordedMetrics, name: &str) -> std::collections::HashMap<String, u64> {
    let of_name = recorded.iter().filter(|(key, ..)| key.key().name() == name);
    of_name
        .filter_map(|(key, _, _, value)| {
            let result = key.key().labels().find(|label| label.key() == "result")?.value().to_owned();
            let DebugValue::Counter(count) = value else { return None };
            Some((result, *count))
        })
        .collect()
}

#[tokio::test]
async fn cache_counts_hits_misses_and_refreshes() {
    let store = MemoryStore::new();
    let tallies = Repository::<Tally, _>::new(store.clone());
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let id = Id::<Tally>::generate();
    {
        let _recording = metrics::set_default_local_recorder(&recorder);
        tallies.execute(id, &TallyCommand::Add(1), &context()).await.unwrap(); // miss
        tallies.load(id).await.unwrap(); // hit
        plain(&store).execute(id, &TallyCommand::Add(1), &context()).await.unwrap(); // without a cache: not counted
        tallies.load(id).await.unwrap(); // hit, outdated
        tallies.execute(id, &TallyCommand::Add(1), &context()).await.unwrap(); // hit
    }
    let counted = counted(&snapshotter.snapshot().into_vec(), "epoch_cache_total");
    let expected = [("hit", 3), ("miss", 1), ("refresh", 1)].map(|(result, count)| (result.to_owned(), count));
    assert_eq!(counted, expected.into());
}

#[tokio::test]
async fn repository_recovers_when_the_store_lost_events() {
    let store = MemoryStore::new();
    let tallies = Repository::<Tally, _>::new(store.clone());
    let id = Id::<Tally>::generate();
    tallies.execute(id, &TallyCommand::Add(1), &context()).await.unwrap();
    // As after a fail-over to a lagging replica.
    let state = Arc::new(Tally { total: 500, counts: 500 });
    let after = VersionedState { state, version: Version::new(500) };
    tallies.record_commit(Change { id: id.uuid(), before: Version::new(499), after, deleted: false });
    let executed = tallies.execute(id, &TallyCommand::Add(1), &context()).await.unwrap();
    assert_eq!(executed.version.get(), 2);
    assert_eq!(tallies.load(id).await.unwrap().state.total, 2);
}

#[tokio::test]
async fn tombstone_discards_snapshot_and_versions_continue() {
    let store = MemoryStore::new();
    let (snapshots, tallies) = with_snapshots(&store, SnapshotPolicy::EveryCommit);
    let id = Uuid::now_v7();
    tallies.execute(id, &TallyCommand::Add(9), &context()).await.unwrap();
    snapshots.saved(1).await;
    tallies.execute(id, &TallyCommand::ThrowAway, &context()).await.unwrap();
    snapshots.discarded.subscribe().wait_for(|discarded| *discarded == 1).await.unwrap();
    assert_eq!(snapshots.version(id).await, None);
    // An old snapshot that reappears is discarded when the fold meets the tombstone.
    snapshots.inner.save(&[forged(id, 1, 1, r#"{"total":9,"counts":1}"#)]).await.unwrap();
    assert_eq!(*tallies.load(id).await.unwrap().state, Tally::default());
    snapshots.discarded.subscribe().wait_for(|discarded| *discarded == 2).await.unwrap();
    let again = tallies.create(id, &TallyCommand::Add(2), &context()).await.unwrap();
    assert_eq!(again.version.get(), 3, "versions continue after recreation");
    let loaded = tallies.load(id).await.unwrap();
    assert_eq!((loaded.version.get(), loaded.state.total), (3, 2));
}

#[derive(Debug, Clone)]
enum Step {
    Command(TallyCommand),
    Elsewhere(TallyCommand),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let command = prop_oneof![
        6 => (1..10_i64).prop_map(TallyCommand::Add),
        1 => Just(TallyCommand::Add(0)),
        1 => (1..10_i64).prop_map(TallyCommand::StartAgainWith),
        2 => Just(TallyCommand::ThrowAway),
    ];
    let step = (command, 0..8_u8).prop_map(|(command, kind)| match kind {
        0 => Step::Restart,
        1 | 2 => Step::Elsewhere(command),
        _ => Step::Command(command),
    });
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A load equals the fold of the log, now and at each earlier version. Cases combine cache, snapshots and state store with
    /// concurrent writers, restarts and deletions.
    #[test]
    fn load_equals_the_fold_of_the_log(
        steps in steps(), cache in prop_oneof![Just(0), Just(100_u64)], every in 0..6_u64, states in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (store, snapshot_store, id) = (MemoryStore::new(), MemorySnapshotStore::new(), Uuid::now_v7());
            let state_store = Arc::new(MemoryStateStore::new());
            let open = || {
                let (snapshots, writer) = Snapshots::new(Arc::new(snapshot_store.clone()));
                tokio::spawn(writer.run());
                let policy = if every == 0 { SnapshotPolicy::Never } else { SnapshotPolicy::Every(every) };
                let tallies = Repository::new(store.clone()).with_cache(cache).with_snapshots(&snapshots, policy);
                if states { tallies.with_states(state_store.clone()) } else { tallies }
            };
            let mut tallies = open();
            for step in steps {
                let (repository, command) = match step {
                    Step::Restart => {
                        tallies = open();
                        continue;
                    }
                    Step::Command(command) => (tallies.clone(), command),
                    Step::Elsewhere(command) => (plain(&store), command),
                };
                // The outcome does not matter: the log defines the expected state.
                let _ = repository.execute(id, &command, &context()).await;
                tokio::task::yield_now().await;
                let (here, log) = (tallies.load(id).await.unwrap(), plain(&store).load(id).await.unwrap());
                assert_eq!((&here.state, here.version), (&log.state, log.version));
            }
            let events: Vec<_> = store.stream(Tally::NAME, id, Version::ZERO).try_collect().await.unwrap();
            let mut expected = VersionedState::<Tally>::default();
            for event in events {
                let before = tallies.state_at(id, PointInTime::Version(expected.version)).await.unwrap();
                assert_eq!((before.version, before.state), (expected.version, expected.state.clone()));
                expected.evolve(&event.decode().unwrap());
            }
            for ahead in [expected.version, expected.version.after(9)] {
                let newest = tallies.state_at(id, PointInTime::Version(ahead)).await.unwrap();
                assert_eq!((newest.version, newest.state), (expected.version, expected.state.clone()));
            }
        });
    }
}

#[tokio::test]
async fn state_at_an_instant_contains_events_recorded_by_then() {
    static CLOCK: AtomicU64 = AtomicU64::new(0);
    let store = MemoryStore::new();
    let tallies = Repository::<Tally, _>::new(store.clone());
    let id = Id::<Tally>::generate();
    for by in 1..=4 {
        // Recorded times have millisecond resolution, so append each event in a later millisecond.
        while CLOCK.load(Ordering::SeqCst) >= Timestamp::now().as_millis().unsigned_abs() {
            std::thread::yield_now();
        }
        tallies.execute(id, &TallyCommand::Add(by), &context()).await.unwrap();
        CLOCK.store(Timestamp::now().as_millis().unsigned_abs(), Ordering::SeqCst);
    }
    let events: Vec<_> = store.stream(Tally::NAME, id.uuid(), Version::ZERO).try_collect().await.unwrap();
    let mut total = 0;
    for (event, by) in events.iter().zip(1..) {
        let before = Timestamp::from_millis(event.recorded_at.as_millis() - 1);
        assert_eq!(tallies.state_at(id, PointInTime::Recorded(before)).await.unwrap().state.total, total);
        total += by;
        assert_eq!(tallies.state_at(id, PointInTime::Recorded(event.recorded_at)).await.unwrap().state.total, total);
    }
}
