//! The conformance suite of state stores.

use std::sync::Arc;

use uuid::Uuid;

use super::tally::{EmptyTally, Tallied, Tally, TallyCommand, TallyEvent};
use crate::{
    aggregate::{Aggregate, VersionedState, context::CommandContext},
    event::version::Version,
    repository::{ExecuteError, Repository},
    store::{
        Append, AppendOutcome, EventStore, NewEvent, StoreError,
        state::{Change, StateStore},
    },
};

/// Checks the invariants of a repository with a state store, on tallies in `states`.
///
/// # Errors
/// [`ExecuteError`] when the store fails.
///
/// # Panics
/// When an invariant is violated.
#[allow(clippy::panic, reason = "a test kit fails tests by panicking")]
pub async fn state_store_conformance<S: EventStore>(
    store: &S,
    states: Arc<dyn StateStore<Tally, S::Executor>>,
) -> Result<(), ExecuteError<EmptyTally>> {
    let context = CommandContext::new();
    let writing = Repository::new(store.clone()).with_states(Arc::clone(&states));
    let plain = Repository::<Tally, S>::new(store.clone()).with_cache(0);
    let at = |version, total, counts| Some((Version::new(version), Tally { total, counts }));
    let (id, other) = (Uuid::now_v7(), Uuid::now_v7());

    assert_eq!(stored(store, &*states, id).await?, None, "nothing before the first event");
    writing.create(id, &TallyCommand::Add(5), &context).await?;
    assert_eq!(stored(store, &*states, id).await?, at(1, 5, 1), "state is written with the first event");
    writing.execute(id, &TallyCommand::Add(2), &context).await?;
    assert_eq!(stored(store, &*states, id).await?, at(2, 7, 2), "state is updated with later events");
    writing.execute(id, &TallyCommand::Add(0), &context).await?;
    assert_eq!(stored(store, &*states, id).await?, at(2, 7, 2), "a no-op does not change the state");
    assert_eq!(stored(store, &*states, other).await?, None, "other aggregates have no state");

    // A repository without the state store appends: the stored state lags and is folded forward.
    plain.execute(id, &TallyCommand::Add(10), &context).await?;
    assert_eq!(stored(store, &*states, id).await?, at(2, 7, 2), "not written without the state store");
    let fresh = Repository::new(store.clone()).with_states(Arc::clone(&states)).with_cache(0);
    assert_eq!(version_and_tally(fresh.load(id).await?), at(3, 17, 3), "a lagging state is folded forward");
    fresh.execute(id, &TallyCommand::Add(1), &context).await?;
    assert_eq!(stored(store, &*states, id).await?, at(4, 18, 4), "the next command updates the state");

    // Deletion: the state is deleted, versions continue, and a recreated aggregate starts from the default state.
    writing.execute(id, &TallyCommand::ThrowAway, &context).await?;
    assert_eq!(stored(store, &*states, id).await?, None, "a tombstone deletes the state");
    for repository in [&writing, &fresh, &plain] {
        assert_eq!(
            version_and_tally(repository.load(id).await?),
            at(5, 0, 0),
            "only the version remains after a tombstone"
        );
        let again = repository.execute(id, &TallyCommand::ThrowAway, &context).await;
        assert!(matches!(again, Err(ExecuteError::Rejected(EmptyTally))), "decided on the default state: {again:?}");
    }
    writing.execute(id, &TallyCommand::Add(3), &context).await?;
    assert_eq!(stored(store, &*states, id).await?, at(6, 3, 1), "recreated under its id");
    writing.execute(id, &TallyCommand::StartAgainWith(8), &context).await?;
    assert_eq!(stored(store, &*states, id).await?, at(9, 8, 1), "a tombstone in the middle of a command");
    for repository in [&writing, &fresh, &plain] {
        assert_eq!(version_and_tally(repository.load(id).await?), at(9, 8, 1), "equal from all sources");
    }

    // A state that the log does not contain is ignored.
    let invented = Change { id, before: Version::new(9), after: tally_at(40, 999, 40), deleted: false };
    let append = Append {
        aggregate: Tally::NAME,
        aggregate_id: other,
        expected: Version::ZERO,
        previous: None,
        events: vec![NewEvent::encode(&TallyEvent::from(Tallied { by: 1 })).map_err(StoreError::from)?],
        context: context.clone(),
    };
    let appended = store.append_with_state(append, &*states, &invented).await?;
    assert!(matches!(appended, AppendOutcome::Committed { .. }), "{appended:?}");
    assert_eq!(stored(store, &*states, id).await?, at(40, 999, 40), "the suite stored a wrong state");
    assert_eq!(version_and_tally(fresh.load(id).await?), at(9, 8, 1), "the log is the authority");
    concurrent_writers_leave_the_newest_state(store, states).await
}

fn tally_at(version: u64, total: i64, counts: u64) -> VersionedState<Tally> {
    VersionedState { state: Arc::new(Tally { total, counts }), version: Version::new(version) }
}

fn version_and_tally(state: VersionedState<Tally>) -> Option<(Version, Tally)> {
    Some((state.version, Tally::clone(&state.state)))
}

async fn stored<S: EventStore>(
    store: &S,
    states: &dyn StateStore<Tally, S::Executor>,
    id: Uuid,
) -> Result<Option<(Version, Tally)>, StoreError> {
    Ok(store.read_state(states, id).await?.and_then(version_and_tally))
}

async fn concurrent_writers_leave_the_newest_state<S: EventStore>(
    store: &S,
    states: Arc<dyn StateStore<Tally, S::Executor>>,
) -> Result<(), ExecuteError<EmptyTally>> {
    let (id, context) = (Uuid::now_v7(), CommandContext::new());
    // Two repositories, as in two processes with separate caches.
    let repositories: Vec<_> =
        (0..2).map(|_| Repository::new(store.clone()).with_states(Arc::clone(&states))).collect();
    let writers = (0..12_usize).map(async |writer| {
        for _ in 0..5 {
            let Some(repository) = repositories.get(writer % 2) else { continue };
            repository.execute(id, &TallyCommand::Add(1), &context).await?;
            let newest = repository.load(id).await?.version;
            let stored = store.read_state(&*states, id).await?.map(|state| (state.version.get(), state.state.counts));
            assert!(stored.is_some_and(|(version, counts)| version == counts), "state and version differ: {stored:?}");
            assert!(
                stored.is_some_and(|(version, _)| version + 12 >= newest.get()),
                "an older state replaced a newer one"
            );
        }
        Ok::<_, ExecuteError<EmptyTally>>(())
    });
    futures::future::try_join_all(writers).await?;
    let expected = Some((Version::new(60), Tally { total: 60, counts: 60 }));
    assert_eq!(stored(store, &*states, id).await?, expected, "the newest committed state remains");
    Ok(())
}
