//! The suites that every state store and every snapshot store passes.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    aggregate::Aggregate,
    cache::Loaded,
    context::CommandContext,
    repository::{ExecuteError, Repository},
    snapshot::{Snapshot, SnapshotStore},
    state::{Change, StateStore},
    store::{Append, Appended, EventStore, NewEvent, StoreError},
    version::Version,
};

/// Something was counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tallied {
    /// How much.
    pub by: i64,
}

/// The tally was thrown away: a tombstone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ThrownAway {}

const TALLIED: &str = r#"{"type": "record", "name": "Tallied", "fields": [{"name": "by", "type": "long"}]}"#;
const THROWN_AWAY: &str = r#"{"type": "record", "name": "ThrownAway", "fields": []}"#;

crate::events! {
    /// What happens to a tally.
    pub enum TallyEvent { Tallied = [TALLIED], ThrownAway = [THROWN_AWAY] }
}

/// What a tally can be asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TallyCommand {
    /// Count; nothing to do for 0.
    Add(i64),
    /// Count, throw away, count: all in one command.
    StartAgainWith(i64),
    /// End with nothing. Refused when there is nothing.
    ThrowAway,
}

/// There is nothing to throw away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tally is empty")]
pub struct Empty;

/// The aggregate of these suites.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// What was counted since it was created.
    pub total: i64,
    /// How many counts that were.
    pub counts: u64,
}

impl Aggregate for Tally {
    const NAME: &'static str = "tally";
    type Command = TallyCommand;
    type Event = TallyEvent;
    type Error = Empty;

    fn decide(&self, command: &TallyCommand) -> Result<Vec<TallyEvent>, Empty> {
        match command {
            TallyCommand::Add(0) => Ok(vec![]),
            TallyCommand::Add(by) => Ok(vec![Tallied { by: *by }.into()]),
            TallyCommand::StartAgainWith(by) => {
                Ok(vec![Tallied { by: 1 }.into(), ThrownAway {}.into(), Tallied { by: *by }.into()])
            }
            TallyCommand::ThrowAway if self.counts == 0 => Err(Empty),
            TallyCommand::ThrowAway => Ok(vec![ThrownAway {}.into()]),
        }
    }

    fn evolve(&mut self, event: &TallyEvent) {
        if let TallyEvent::Tallied(event) = event {
            self.total += event.by;
            self.counts += 1;
        }
    }

    fn is_tombstone(event: &TallyEvent) -> bool {
        matches!(event, TallyEvent::ThrownAway(_))
    }
}

/// What a repository with a state store promises, tried on tallies in `states`.
///
/// # Errors
/// When the store gives no answer.
///
/// # Panics
/// When a promise is broken.
#[allow(clippy::panic, reason = "a test kit fails tests by panicking")]
pub async fn state_store_conformance<S: EventStore>(
    store: &S,
    states: Arc<dyn StateStore<Tally, S::Executor>>,
) -> Result<(), ExecuteError<Empty>> {
    let context = CommandContext::new();
    let keeping = Repository::new(store.clone()).with_states(Arc::clone(&states));
    let plain = Repository::<Tally, S>::new(store.clone()).with_cache(0);
    let at = |version, total, counts| Some((Version::new(version), Tally { total, counts }));
    let (id, other) = (Uuid::now_v7(), Uuid::now_v7());

    assert_eq!(kept(store, &*states, id).await?, None, "nothing before the first event");
    keeping.create(id, &TallyCommand::Add(5), &context).await?;
    assert_eq!(kept(store, &*states, id).await?, at(1, 5, 1), "the state is there with its first event");
    keeping.execute(id, &TallyCommand::Add(2), &context).await?;
    assert_eq!(kept(store, &*states, id).await?, at(2, 7, 2), "and with the next ones");
    keeping.execute(id, &TallyCommand::Add(0), &context).await?;
    assert_eq!(kept(store, &*states, id).await?, at(2, 7, 2), "nothing to do leaves it alone");
    assert_eq!(kept(store, &*states, other).await?, None, "and others");

    // Somebody without the state store has gone on: the row is behind, and is folded on.
    plain.execute(id, &TallyCommand::Add(10), &context).await?;
    assert_eq!(kept(store, &*states, id).await?, at(2, 7, 2), "written by those who have the state store");
    let fresh = Repository::new(store.clone()).with_states(Arc::clone(&states)).with_cache(0);
    assert_eq!(shown(fresh.load(id).await?), at(3, 17, 3), "a state that is behind is folded on");
    fresh.execute(id, &TallyCommand::Add(1), &context).await?;
    assert_eq!(kept(store, &*states, id).await?, at(4, 18, 4), "and caught up with the next command");

    // Deletion: the state is gone, versions go on, and what is created again begins from nothing.
    keeping.execute(id, &TallyCommand::ThrowAway, &context).await?;
    assert_eq!(kept(store, &*states, id).await?, None, "a tombstone takes the state away");
    for repository in [&keeping, &fresh, &plain] {
        assert_eq!(shown(repository.load(id).await?), at(5, 0, 0), "after a tombstone nothing is left but the version");
        let again = repository.execute(id, &TallyCommand::ThrowAway, &context).await;
        assert!(matches!(again, Err(ExecuteError::Rejected(Empty))), "decided on nothing: {again:?}");
    }
    keeping.execute(id, &TallyCommand::Add(3), &context).await?;
    assert_eq!(kept(store, &*states, id).await?, at(6, 3, 1), "created again under its id");
    keeping.execute(id, &TallyCommand::StartAgainWith(8), &context).await?;
    assert_eq!(kept(store, &*states, id).await?, at(9, 8, 1), "a tombstone in the middle of a command");
    for repository in [&keeping, &fresh, &plain] {
        assert_eq!(shown(repository.load(id).await?), at(9, 8, 1), "the same from wherever it is loaded");
    }

    // A state the log knows nothing of counts for nothing.
    let invented = Change { id, before: Version::new(9), after: loaded(40, 999, 40), deleted: false };
    let append = Append {
        aggregate: Tally::NAME,
        aggregate_id: other,
        expected: Version::ZERO,
        previous: None,
        events: vec![NewEvent::encode(&TallyEvent::from(Tallied { by: 1 })).map_err(StoreError::from)?],
        context: context.clone(),
    };
    let appended = store.append_with_state(append, &*states, &invented).await?;
    assert!(matches!(appended, Appended::Committed { .. }), "{appended:?}");
    assert_eq!(kept(store, &*states, id).await?, at(40, 999, 40), "the suite has spoilt the state");
    assert_eq!(shown(fresh.load(id).await?), at(9, 8, 1), "the log decides");
    many_writers_leave_the_newest_state(store, states).await
}

fn loaded(version: u64, total: i64, counts: u64) -> Loaded<Tally> {
    Loaded { state: Arc::new(Tally { total, counts }), version: Version::new(version) }
}

fn shown(loaded: Loaded<Tally>) -> Option<(Version, Tally)> {
    Some((loaded.version, Tally::clone(&loaded.state)))
}

async fn kept<S: EventStore>(
    store: &S,
    states: &dyn StateStore<Tally, S::Executor>,
    id: Uuid,
) -> Result<Option<(Version, Tally)>, StoreError> {
    Ok(store.read_state(states, id).await?.and_then(shown))
}

async fn many_writers_leave_the_newest_state<S: EventStore>(
    store: &S,
    states: Arc<dyn StateStore<Tally, S::Executor>>,
) -> Result<(), ExecuteError<Empty>> {
    let (id, context) = (Uuid::now_v7(), CommandContext::new());
    // Two processes, as far as caches go.
    let repositories: Vec<_> =
        (0..2).map(|_| Repository::new(store.clone()).with_states(Arc::clone(&states))).collect();
    let writers = (0..12_usize).map(async |writer| {
        for _ in 0..5 {
            let Some(repository) = repositories.get(writer % 2) else { continue };
            repository.execute(id, &TallyCommand::Add(1), &context).await?;
            let newest = repository.load(id).await?.version;
            let kept = store.read_state(&*states, id).await?.map(|state| (state.version.get(), state.state.counts));
            assert!(
                kept.is_some_and(|(version, counts)| version == counts),
                "state and version of one commit: {kept:?}"
            );
            assert!(kept.is_some_and(|(version, _)| version + 12 >= newest.get()), "an older state over a newer one");
        }
        Ok::<_, ExecuteError<Empty>>(())
    });
    futures::future::try_join_all(writers).await?;
    let expected = Some((Version::new(60), Tally { total: 60, counts: 60 }));
    assert_eq!(kept(store, &*states, id).await?, expected, "no state of a loser, none over a newer one");
    Ok(())
}

/// What every snapshot store promises.
///
/// # Errors
/// When the store gives no answer.
///
/// # Panics
/// When it breaks a promise.
#[allow(clippy::panic, reason = "a test kit fails tests by panicking")]
pub async fn snapshot_store_conformance(store: &dyn SnapshotStore) -> Result<(), StoreError> {
    let mut ids = [Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7()];
    ids.sort_unstable();
    let [first, second, third] = ids;
    let snapshot = |id, version, schema, state: &'static [u8]| Snapshot {
        aggregate: "conformance",
        id,
        version: Version::new(version),
        schema,
        state: Bytes::from_static(state),
    };
    assert_eq!(store.newest("conformance", first).await?, None, "none at first");
    store.save(&[snapshot(first, 7, 1, b"a"), snapshot(second, 1, u32::MAX, b"")]).await?;
    assert_eq!(store.newest("conformance", first).await?, Some(snapshot(first, 7, 1, b"a")), "kept as it is");
    assert_eq!(store.newest("conformance", second).await?, Some(snapshot(second, 1, u32::MAX, b"")), "empty ones too");
    assert_eq!(store.newest("another", first).await?, None, "names tell aggregates apart");
    store.save(&[snapshot(first, 6, 2, b"b"), snapshot(second, 1, 2, b"c"), snapshot(third, 3, 1, b"d")]).await?;
    assert_eq!(store.newest("conformance", first).await?, Some(snapshot(first, 7, 1, b"a")), "an older one is dropped");
    assert_eq!(store.newest("conformance", second).await?, Some(snapshot(second, 1, 2, b"c")), "made anew");
    store.save(&[snapshot(first, 8, 1, b"e")]).await?;
    assert_eq!(store.newest("conformance", first).await?, Some(snapshot(first, 8, 1, b"e")), "a newer one");
    let found = store.newest_and_since("conformance", first).await?;
    assert_eq!(found.as_ref().map(|(newest, _)| newest), Some(&snapshot(first, 8, 1, b"e")), "however it is read");
    assert!(found.is_some_and(|(_, since)| since.events.is_empty()), "a log that has no such event says nothing");
    store.save(&[]).await?;
    for _ in 0..2 {
        store.discard("conformance", first).await?;
        assert_eq!(store.newest("conformance", first).await?, None, "thrown away");
    }
    assert_eq!(store.newest("conformance", third).await?, Some(snapshot(third, 3, 1, b"d")), "others stay");
    Ok(())
}
