//! An in-memory cache of aggregate states.
//!
//! The cache is a starting point, never an authority. It holds immutable, committed states with their versions. An
//! append still names its version, so an outdated entry costs a retry at most.
//!
//! Metrics: `epoch_cache_total` (`aggregate`, `result`: `hit` or `miss` for each lookup by a command, `refresh` when a
//! cached state was older than the store's).

use moka::{ops::compute::Op, sync::Cache};
use uuid::Uuid;

use crate::aggregate::{Aggregate, VersionedState};

/// A bounded cache of the states of one type of aggregate.
#[derive(Clone)]
pub(super) struct StateCache<A> {
    entries: Option<Cache<Uuid, VersionedState<A>>>,
}

impl<A: Aggregate> StateCache<A> {
    /// Creates a cache of at most `capacity` states; `0` disables it.
    pub(super) fn new(capacity: u64) -> Self {
        Self { entries: (capacity > 0).then(|| Cache::new(capacity)) }
    }

    /// Returns the cached state and counts a hit or a miss.
    pub(super) fn get(&self, id: Uuid) -> Option<VersionedState<A>> {
        let cached = self.entries.as_ref()?.get(&id);
        count::<A>(if cached.is_some() { "hit" } else { "miss" });
        cached
    }

    /// Returns the cached state without counting a lookup.
    pub(super) fn peek(&self, id: Uuid) -> Option<VersionedState<A>> {
        self.entries.as_ref()?.get(&id)
    }

    /// Counts that a cached state was older than the store's.
    pub(super) fn count_refresh(&self) {
        if self.entries.is_some() {
            count::<A>("refresh");
        }
    }

    /// Removes a state.
    pub(super) fn remove(&self, id: Uuid) {
        if let Some(entries) = &self.entries {
            entries.invalidate(&id);
        }
    }

    /// Caches a committed state unless a newer one is cached.
    pub(super) fn put(&self, id: Uuid, state: VersionedState<A>) {
        let Some(entries) = &self.entries else { return };
        entries.entry(id).and_compute_with(|present| match present {
            Some(present) if present.value().version >= state.version => Op::Nop,
            _ => Op::Put(state),
        });
    }
}

fn count<A: Aggregate>(result: &'static str) {
    metrics::counter!("epoch_cache_total", "aggregate" => A::NAME, "result" => result).increment(1);
}
