//! The repository of one type of aggregate: its parts and settings.

use std::{sync::Arc, time::Duration};

use uuid::Uuid;

use super::{cache::StateCache, conflict_queue::ConflictQueue, pending_states::PendingStates};
use crate::{
    aggregate::{Aggregate, VersionedState},
    store::{
        EventStore,
        snapshot::{SnapshotPolicy, Snapshots},
        state::{Change, StateStore},
    },
    time::retry::RetryPolicy,
};

/// Executes commands on one type of aggregate and loads its states. Clones share the cache.
pub struct Repository<A: Aggregate, S: EventStore> {
    pub(super) store: S,
    pub(super) cache: StateCache<A>,
    pub(super) states: Option<Arc<dyn StateStore<A, S::Executor>>>,
    pub(super) snapshots: Option<(Snapshots, SnapshotPolicy)>,
    pub(super) retry: RetryPolicy,
    pub(super) fast_path_wait: Duration,
    pub(super) conflict_queue: ConflictQueue,
    pub(super) pending_states: PendingStates<A>,
}

// Implemented by hand because a derive would require `S::Executor: Clone`.
impl<A: Aggregate, S: EventStore> Clone for Repository<A, S> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            cache: self.cache.clone(),
            states: self.states.clone(),
            snapshots: self.snapshots.clone(),
            retry: self.retry,
            fast_path_wait: self.fast_path_wait,
            conflict_queue: self.conflict_queue.clone(),
            pending_states: self.pending_states.clone(),
        }
    }
}

impl<A: Aggregate, S: EventStore> Repository<A, S> {
    /// Creates a repository with a cache of 10,000 states and a fast-path wait of 500 ms.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self {
            store,
            cache: StateCache::new(10_000),
            states: None,
            snapshots: None,
            retry: RetryPolicy::CONFLICT,
            fast_path_wait: Duration::from_millis(500),
            conflict_queue: ConflictQueue::new(),
            pending_states: PendingStates::new(),
        }
    }

    /// Sets the cache's capacity in states; `0` disables the cache.
    #[must_use]
    pub fn with_cache(mut self, states: u64) -> Self {
        self.cache = StateCache::new(states);
        self
    }

    /// Writes the state with each commit to `states`; see [`state`](crate::state).
    #[must_use]
    pub fn with_states(mut self, states: Arc<dyn StateStore<A, S::Executor>>) -> Self {
        self.states = Some(states);
        self
    }

    /// Reads and writes snapshots according to `policy`; see [`snapshot`](crate::snapshot).
    #[must_use]
    pub fn with_snapshots(mut self, snapshots: &Snapshots, policy: SnapshotPolicy) -> Self {
        self.snapshots = (policy != SnapshotPolicy::Never).then(|| (snapshots.clone(), policy));
        self
    }

    /// Sets the number of attempts and the delays after write conflicts.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Sets how long a command waits for the [fast path](crate::fast_path) after its commit.
    #[must_use]
    pub fn with_fast_path_wait(mut self, limit: Duration) -> Self {
        self.fast_path_wait = limit;
        self
    }

    /// Returns the event store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Returns the cached state, or the default state at version 0. It may be outdated.
    #[must_use]
    pub fn cached(&self, id: Uuid) -> VersionedState<A> {
        self.cache.get(id).unwrap_or_default()
    }

    /// Returns the state store, if there is one.
    #[must_use]
    pub fn states(&self) -> Option<&Arc<dyn StateStore<A, S::Executor>>> {
        self.states.as_ref()
    }

    /// Caches the state of a commit and queues its snapshot.
    pub fn record_commit(&self, change: Change<A>) {
        if let Some((snapshots, policy)) = &self.snapshots {
            snapshots.after_commit(*policy, &change);
        }
        self.cache.put(change.id, change.after);
    }
}
