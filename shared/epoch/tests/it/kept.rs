//! States that are kept: in a state store, as snapshots, in the cache; and states of earlier moments.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use epoch::{
    Aggregate, CommandContext, Id, Repository, Timestamp, Version,
    cache::Loaded,
    memory::{MemorySnapshots, MemoryStates, MemoryStore},
    repository::At,
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
async fn states_are_kept_as_every_state_store_promises() {
    state_store_conformance(&MemoryStore::new(), Arc::new(MemoryStates::new())).await.unwrap();
}

#[tokio::test]
async fn snapshots_are_kept_as_every_snapshot_store_promises() {
    snapshot_store_conformance(&MemorySnapshots::new()).await.unwrap();
}

/// Keeps snapshots in memory, counts what is asked of it, and waits with saving until it may.
#[derive(Clone)]
struct Watched {
    kept: MemorySnapshots,
    saved: Arc<watch::Sender<u64>>,
    discarded: Arc<watch::Sender<u64>>,
    may_save: Arc<Semaphore>,
    failing: Arc<Mutex<bool>>,
}

impl Watched {
    fn new() -> Self {
        Self {
            kept: MemorySnapshots::new(),
            saved: Arc::new(watch::channel(0).0),
            discarded: Arc::new(watch::channel(0).0),
            may_save: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            failing: Arc::default(),
        }
    }

    fn answer(&self) -> Result<(), StoreError> {
        let failing = *self.failing.lock().unwrap();
        if failing { Err(StoreError::Unavailable { detail: "told to".into() }) } else { Ok(()) }
    }

    async fn version(&self, id: Uuid) -> Option<u64> {
        self.kept.newest(Tally::NAME, id).await.unwrap().map(|snapshot| snapshot.version.get())
    }

    /// Waits until as many snapshots have been saved in all.
    async fn saved(&self, number: u64) {
        self.saved.subscribe().wait_for(|saved| *saved >= number).await.unwrap();
    }
}

#[async_trait]
impl SnapshotStore for Watched {
    async fn newest(&self, aggregate: &'static str, id: Uuid) -> Result<Option<Snapshot>, StoreError> {
        self.answer()?;
        self.kept.newest(aggregate, id).await
    }

    async fn save(&self, snapshots: &[Snapshot]) -> Result<(), StoreError> {
        let _permit = self.may_save.acquire().await.unwrap();
        let result = match self.answer() {
            Ok(()) => self.kept.save(snapshots).await,
            error => error,
        };
        self.saved.send_modify(|saved| *saved += snapshots.len() as u64);
        result
    }

    async fn discard(&self, aggregate: &'static str, id: Uuid) -> Result<(), StoreError> {
        self.kept.discard(aggregate, id).await?;
        self.discarded.send_modify(|discarded| *discarded += 1);
        Ok(())
    }
}

fn with_snapshots(store: &MemoryStore, policy: SnapshotPolicy) -> (Watched, Repository<Tally, MemoryStore>) {
    let watched = Watched::new();
    let (snapshots, writer) = Snapshots::new(Arc::new(watched.clone()));
    tokio::spawn(writer.run());
    (watched, Repository::new(store.clone()).with_cache(0).with_snapshots(&snapshots, policy))
}

fn forged(id: Uuid, version: u64, schema: u32, state: &str) -> Snapshot {
    let state = state.to_owned().into();
    Snapshot { aggregate: Tally::NAME, id, version: Version::new(version), schema, state }
}

#[tokio::test]
async fn snapshots_follow_their_policy_and_save_folding() {
    let store = MemoryStore::new();
    let (watched, tallies) = with_snapshots(&store, SnapshotPolicy::Every(10));
    let id = Uuid::now_v7();
    for _ in 0..9 {
        tallies.execute(id, &TallyCommand::Add(1), &context()).await.unwrap();
    }
    // One command over the mark; it stands for all its events.
    tallies.execute(id, &TallyCommand::Add(1), &context()).await.unwrap();
    watched.saved(1).await;
    assert_eq!(watched.version(id).await, Some(10));
    for _ in 0..5 {
        tallies.execute(id, &TallyCommand::Add(1), &context()).await.unwrap();
    }
    assert_eq!(tallies.load(id).await.unwrap().state.total, 15);
    assert_eq!((watched.version(id).await, *watched.saved.borrow()), (Some(10), 1), "none in between");
    // That a load begins with the snapshot shows when the snapshot says something else.
    watched.kept.save(&[forged(id, 10, 1, r#"{"total":1000,"counts":10}"#)]).await.unwrap();
    assert_eq!(tallies.load(id).await.unwrap().state.total, 1005, "five events folded on the snapshot");
    let (never, without) = with_snapshots(&store, SnapshotPolicy::Never);
    without.execute(id, &TallyCommand::Add(1), &context()).await.unwrap();
    never.kept.save(&[forged(id, 10, 1, r#"{"total":1000,"counts":10}"#)]).await.unwrap();
    assert_eq!(without.load(id).await.unwrap().state.total, 16, "never: not read either");
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_used_is_ignored_and_made_anew() {
    let store = MemoryStore::new();
    let (watched, tallies) = with_snapshots(&store, SnapshotPolicy::Every(4));
    let id = Uuid::now_v7();
    for _ in 0..6 {
        plain(&store).execute(id, &TallyCommand::Add(1), &context()).await.unwrap();
    }
    let right = Tally { total: 6, counts: 6 };
    let mut saved = 0;
    for (what, snapshot) in [
        ("not JSON", forged(id, 4, 1, "{")),
        ("another shape", forged(id, 4, 1, r#"{"sum":4}"#)),
        ("another schema", forged(id, 4, 2, r#"{"total":400,"counts":4}"#)),
        ("the newest version, another schema", forged(id, 6, 0, r#"{"total":400,"counts":4}"#)),
    ] {
        watched.kept.discard(Tally::NAME, id).await.unwrap();
        watched.kept.save(&[snapshot]).await.unwrap();
        assert_eq!(*tallies.load(id).await.unwrap().state, right, "{what}");
        saved += 1;
        watched.saved(saved).await;
        let anew = watched.kept.newest(Tally::NAME, id).await.unwrap().unwrap();
        assert_eq!((anew.version.get(), anew.schema), (6, 1), "{what}");
    }
    // One of a version that isn't in the log: thrown away, and made anew by the next load.
    watched.kept.save(&[forged(id, 7, 1, r#"{"total":700,"counts":7}"#)]).await.unwrap();
    let executed = tallies.execute(id, &TallyCommand::ThrowAway, &context()).await.unwrap();
    assert_eq!(executed.version.get(), 7, "no conflict for good with a version that never was");
    watched.discarded.subscribe().wait_for(|discarded| *discarded >= 1).await.unwrap();
    assert_eq!(watched.version(id).await, None);
}

#[tokio::test]
async fn commands_do_not_wait_for_snapshots_and_do_not_need_them() {
    let store = MemoryStore::new();
    let (watched, tallies) = with_snapshots(&store, SnapshotPolicy::EveryCommit);
    watched.may_save.forget_permits(Semaphore::MAX_PERMITS);
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let ids: Vec<Uuid> = (0..3_000).map(|_| Uuid::now_v7()).collect();
    {
        let _recording = metrics::set_default_local_recorder(&recorder);
        // Nothing is written meanwhile: the queue fills up and sheds.
        for id in &ids {
            tallies.create(*id, &TallyCommand::Add(1), &context()).await.unwrap();
        }
    }
    let counted = counted(&snapshotter.snapshot().into_vec(), "epoch_snapshots_total");
    let [queued, shed] = ["queued", "shed"].map(|result| counted.get(result).copied().unwrap_or(0));
    assert_eq!(queued + shed, 3_000);
    assert!(shed >= 1_900, "the queue is bounded: {queued} queued");
    watched.may_save.add_permits(1_000_000);
    watched.saved(queued).await;
    *watched.failing.lock().unwrap() = true;
    for id in &ids[..10] {
        assert_eq!(tallies.load(*id).await.unwrap().state.total, 1, "snapshots that can't be read don't matter");
    }
}

type Recorded = Vec<(metrics_util::CompositeKey, Option<metrics::Unit>, Option<metrics::SharedString>, DebugValue)>;

fn counted(recorded: &Recorded, name: &str) -> std::collections::HashMap<String, u64> {
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
async fn the_cache_counts_hits_misses_and_refreshes() {
    let store = MemoryStore::new();
    let tallies = Repository::<Tally, _>::new(store.clone());
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let id = Id::<Tally>::generate();
    {
        let _recording = metrics::set_default_local_recorder(&recorder);
        tallies.execute(id, &TallyCommand::Add(1), &context()).await.unwrap(); // miss
        tallies.load(id).await.unwrap(); // hit
        plain(&store).execute(id, &TallyCommand::Add(1), &context()).await.unwrap(); // switched off: not counted
        tallies.load(id).await.unwrap(); // hit, but old
        tallies.execute(id, &TallyCommand::Add(1), &context()).await.unwrap(); // hit
    }
    let counted = counted(&snapshotter.snapshot().into_vec(), "epoch_cache_total");
    let expected = [("hit", 3), ("miss", 1), ("refresh", 1)].map(|(result, count)| (result.to_owned(), count));
    assert_eq!(counted, expected.into());
}

#[tokio::test]
async fn a_process_that_remembers_what_the_store_has_lost_is_not_locked_out() {
    let store = MemoryStore::new();
    let tallies = Repository::<Tally, _>::new(store.clone());
    let id = Id::<Tally>::generate();
    tallies.execute(id, &TallyCommand::Add(1), &context()).await.unwrap();
    // As after a fail-over to a replica that was behind.
    let state = Arc::new(Tally { total: 500, counts: 500 });
    let after = Loaded { state, version: Version::new(500) };
    tallies.committed(Change { id: id.uuid(), before: Version::new(499), after, deleted: false });
    let executed = tallies.execute(id, &TallyCommand::Add(1), &context()).await.unwrap();
    assert_eq!(executed.version.get(), 2);
    assert_eq!(tallies.load(id).await.unwrap().state.total, 2);
}

#[tokio::test]
async fn after_a_tombstone_the_snapshot_is_gone_and_the_versions_go_on() {
    let store = MemoryStore::new();
    let (watched, tallies) = with_snapshots(&store, SnapshotPolicy::EveryCommit);
    let id = Uuid::now_v7();
    tallies.execute(id, &TallyCommand::Add(9), &context()).await.unwrap();
    watched.saved(1).await;
    tallies.execute(id, &TallyCommand::ThrowAway, &context()).await.unwrap();
    watched.discarded.subscribe().wait_for(|discarded| *discarded == 1).await.unwrap();
    assert_eq!(watched.version(id).await, None);
    // Also one that comes to light later: a tombstone behind it, and it goes.
    watched.kept.save(&[forged(id, 1, 1, r#"{"total":9,"counts":1}"#)]).await.unwrap();
    assert_eq!(*tallies.load(id).await.unwrap().state, Tally::default());
    watched.discarded.subscribe().wait_for(|discarded| *discarded == 2).await.unwrap();
    let again = tallies.create(id, &TallyCommand::Add(2), &context()).await.unwrap();
    assert_eq!(again.version.get(), 3, "created again: the version goes on");
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

    /// Whatever is kept, wherever commands run, deleted and created again: a load is the fold of the log, now and at each
    /// earlier version.
    #[test]
    fn whatever_is_kept_a_load_is_the_fold_of_the_log(
        steps in steps(), cache in prop_oneof![Just(0), Just(100_u64)], every in 0..6_u64, states in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (store, kept, id) = (MemoryStore::new(), MemorySnapshots::new(), Uuid::now_v7());
            let state_store = Arc::new(MemoryStates::new());
            let open = || {
                let (snapshots, writer) = Snapshots::new(Arc::new(kept.clone()));
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
                // Refused or not: the log is what counts.
                let _ = repository.execute(id, &command, &context()).await;
                tokio::task::yield_now().await;
                let (here, log) = (tallies.load(id).await.unwrap(), plain(&store).load(id).await.unwrap());
                assert_eq!((&here.state, here.version), (&log.state, log.version));
            }
            let events: Vec<_> = store.stream(Tally::NAME, id, Version::ZERO).try_collect().await.unwrap();
            let mut expected = Loaded::<Tally>::default();
            for event in events {
                let before = tallies.state_at(id, At::Version(expected.version)).await.unwrap();
                assert_eq!((before.version, before.state), (expected.version, expected.state.clone()));
                expected.evolve(&event.decode().unwrap());
            }
            for ahead in [expected.version, expected.version.after(9)] {
                let newest = tallies.state_at(id, At::Version(ahead)).await.unwrap();
                assert_eq!((newest.version, newest.state), (expected.version, expected.state.clone()));
            }
        });
    }
}

#[tokio::test]
async fn a_state_of_an_earlier_time_is_what_was_recorded_by_then() {
    static CLOCK: AtomicU64 = AtomicU64::new(0);
    let store = MemoryStore::new();
    let tallies = Repository::<Tally, _>::new(store.clone());
    let id = Id::<Tally>::generate();
    for by in 1..=4 {
        // Of two events of one millisecond none is the earlier one.
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
        assert_eq!(tallies.state_at(id, At::Recorded(before)).await.unwrap().state.total, total);
        total += by;
        assert_eq!(tallies.state_at(id, At::Recorded(event.recorded_at)).await.unwrap().state.total, total);
    }
}
