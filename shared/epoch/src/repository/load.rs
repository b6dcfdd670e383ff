//! Loading the current state, or the state at a point in time.
//!
//! A loaded state is always the fold of the log. Cached and stored states only save reading: a state from outside this
//! process must be [verified](Fold::verifying) against the log, and a state that the log does not contain is discarded.

use std::sync::Arc;

use futures::TryStreamExt;
use uuid::Uuid;

use super::{point_in_time::PointInTime, repository::Repository};
use crate::{
    aggregate::{Aggregate, VersionedState, id::AggregateId},
    event::version::Version,
    store::{
        EventStore, StoreError,
        bounds::Versions,
        fold::{Fold, FoldedState},
        snapshot::StreamTail,
    },
};

/// The source of a fold's initial state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Empty,
    Cache,
    StateStore,
    Snapshot,
}

/// A state that was stored outside this process, or the default state.
struct StoredState<A> {
    state: VersionedState<A>,
    /// The events that were read together with the state.
    tail: StreamTail,
    origin: Origin,
}

/// A folded state, and whether the log contained the initial state.
struct VerifiedFold<A> {
    folded: FoldedState<A>,
    verified: bool,
}

impl<A: Aggregate, S: EventStore> Repository<A, S> {
    /// Loads the aggregate's current state.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read or an event cannot be decoded.
    pub async fn load(&self, id: impl AggregateId<A>) -> Result<VersionedState<A>, StoreError> {
        let id = id.uuid();
        self.refresh(id, self.cached(id)).await
    }

    /// Loads the aggregate's state at a point in time; for a point in the future, the current state.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn state_at(&self, id: impl AggregateId<A>, at: PointInTime) -> Result<VersionedState<A>, StoreError> {
        let id = id.uuid();
        match at {
            PointInTime::Version(version) => {
                let StoredState { state, .. } = self.stored_state(id).await?;
                let state = if state.version > version { VersionedState::default() } else { state };
                let up_to = Versions::all().up_to(version);
                let fold = Fold::verifying(id, state);
                Ok(self.fold(id, fold, StreamTail::default(), up_to).await?.folded.state)
            }
            PointInTime::Recorded(instant) => {
                let mut state = VersionedState::default();
                let mut events = self.store.stream(A::NAME, id, Version::ZERO);
                while let Some(event) = events.try_next().await? {
                    if event.recorded_at > instant {
                        break;
                    }
                    state.evolve_stored(&event.decode_all()?);
                }
                Ok(state)
            }
        }
    }

    /// Brings a state up to date by reading only newer events. Starts from a stored state when `state` is the default
    /// state.
    pub(super) async fn refresh(&self, id: Uuid, state: VersionedState<A>) -> Result<VersionedState<A>, StoreError> {
        let (fold, tail, origin) = if state.version > Version::ZERO {
            (Fold::from(id, state), StreamTail::default(), Origin::Cache)
        } else {
            let StoredState { state, tail, origin } = self.stored_state(id).await?;
            (Fold::verifying(id, state), tail, origin)
        };
        let VerifiedFold { folded, verified } = self.fold(id, fold, tail, Versions::all()).await?;
        self.record_fold(id, &folded, origin, verified);
        Ok(folded.state)
    }

    /// Brings a state up to date after a conflict in which the store reported version `actual`.
    pub(super) async fn catch_up(
        &self,
        id: Uuid,
        state: VersionedState<A>,
        actual: Version,
    ) -> Result<VersionedState<A>, StoreError> {
        if actual >= state.version {
            // A command ahead in the conflict queue may have read the new events already.
            return match self.cache.peek(id) {
                Some(cached) if cached.version >= actual => Ok(cached),
                _ => self.refresh(id, state).await,
            };
        }
        // The store lost events, for example by a fail-over to a lagging replica, and the cache still contains them.
        tracing::warn!(aggregate = A::NAME, %id, known = %state.version, %actual, "event store is behind the cache");
        self.cache.remove(id);
        self.refresh(id, VersionedState::default()).await
    }

    /// Reads the newest state from the state store or the snapshot store.
    async fn stored_state(&self, id: Uuid) -> Result<StoredState<A>, StoreError> {
        if let Some(states) = &self.states
            && let Some(state) = self.store.read_state(&**states, id).await?
        {
            return Ok(StoredState { state, tail: StreamTail::default(), origin: Origin::StateStore });
        }
        if let Some((snapshots, _)) = &self.snapshots
            && let Some((state, tail)) = snapshots.read(id).await
        {
            return Ok(StoredState { state, tail, origin: Origin::Snapshot });
        }
        Ok(StoredState { state: VersionedState::default(), tail: StreamTail::default(), origin: Origin::Empty })
    }

    /// Folds the log onto the initial state of `fold`, or from the beginning when the log does not contain that state.
    async fn fold(
        &self,
        id: Uuid,
        mut fold: Fold<A>,
        tail: StreamTail,
        within: Versions,
    ) -> Result<VerifiedFold<A>, StoreError> {
        let mut verified = true;
        // A tail that does not start with the verifying event is ignored.
        let usable = tail.events.first().is_some_and(|first| first.version == fold.bounds().after.next());
        let mut complete = usable && tail.complete;
        if usable {
            for event in &tail.events {
                fold.take(event.as_stored())?;
            }
        }
        loop {
            if !complete {
                let bounds = Versions { after: fold.bounds().after, ..within };
                self.store.visit(A::NAME, id, bounds, &mut |event| fold.take(event)).await?;
            }
            if let Some(folded) = fold.finish() {
                if folded.events_read > 0 {
                    metrics::counter!("epoch_events_loaded_total", "aggregate" => A::NAME)
                        .increment(folded.events_read);
                }
                return Ok(VerifiedFold { folded, verified });
            }
            tracing::warn!(aggregate = A::NAME, %id, "stored state is not in the log; folding all events");
            verified = false;
            complete = false;
            fold = Fold::from(id, VersionedState::default());
        }
    }

    /// Caches a folded state, and queues or discards its snapshot.
    fn record_fold(&self, id: Uuid, folded: &FoldedState<A>, origin: Origin, verified: bool) {
        let FoldedState { state, events_read, tombstone } = folded;
        if origin == Origin::Cache && *events_read > 0 {
            self.cache.count_refresh();
        }
        if state.version > Version::ZERO && (*events_read > 0 || origin != Origin::Cache) {
            self.cache.put(id, VersionedState { state: Arc::clone(&state.state), version: state.version });
        }
        let Some((snapshots, policy)) = &self.snapshots else { return };
        if origin == Origin::Snapshot {
            snapshots.count_use::<A>(verified);
            if !verified || *tombstone {
                // Deleted data must not remain in a snapshot. A later load writes a new one when it folds enough
                // events.
                snapshots.discard::<A>(id);
                return;
            }
        }
        snapshots.after_fold(*policy, id, state, *events_read);
    }
}
