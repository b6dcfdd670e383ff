//! States of aggregates, kept in memory.
//!
//! The problem: reading and folding the whole stream for every command is slow.
//!
//! The invariant: the cache is a starting point, never an authority. It holds immutable states with the version they stand
//! for, put in only after commit; an append still names its version, so an old entry can only cost a retry.
//!
//! Metrics: `epoch_cache_total` (`aggregate`, `result`: `hit` and `miss` for each look, `refresh` when a state from here turned
//! out to be older than the store's).

use std::sync::Arc;

use moka::{ops::compute::Op, sync::Cache};
use uuid::Uuid;

use crate::{aggregate::Aggregate, version::Version};

/// A state and the version it stands for.
#[derive(Debug)]
pub struct Loaded<A> {
    /// The fold of all events up to `version`.
    pub state: Arc<A>,
    /// How many events those are.
    pub version: Version,
}

impl<A> Clone for Loaded<A> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state), version: self.version }
    }
}

impl<A: Default> Default for Loaded<A> {
    fn default() -> Self {
        Self { state: Arc::default(), version: Version::ZERO }
    }
}

impl<A: Aggregate> Loaded<A> {
    /// The state after `event`; copies it only when somebody else holds it too. A tombstone leaves nothing of it.
    pub fn evolve(&mut self, event: &A::Event) {
        self.evolve_stored(std::slice::from_ref(event));
    }

    /// The state after one stored event, which today may be none or several: it counts one version, whatever it became.
    pub fn evolve_stored(&mut self, events: &[A::Event]) {
        for event in events {
            if A::is_tombstone(event) {
                self.state = Arc::default();
            } else {
                Arc::make_mut(&mut self.state).evolve(event);
            }
        }
        self.version = self.version.next();
    }
}

/// A bounded cache of the states of one kind of aggregate.
#[derive(Clone)]
pub struct StateCache<A> {
    entries: Option<Cache<Uuid, Loaded<A>>>,
}

impl<A: Aggregate> StateCache<A> {
    /// A cache of at most `capacity` states; `0` switches it off.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self { entries: (capacity > 0).then(|| Cache::new(capacity)) }
    }

    /// The newest state known here.
    #[must_use]
    pub fn get(&self, id: Uuid) -> Option<Loaded<A>> {
        let found = self.entries.as_ref()?.get(&id);
        count::<A>(if found.is_some() { "hit" } else { "miss" });
        found
    }

    /// The same, without counting it as a command's look.
    pub(crate) fn newest(&self, id: Uuid) -> Option<Loaded<A>> {
        self.entries.as_ref()?.get(&id)
    }

    /// Counts that a state from here was brought up to date.
    pub(crate) fn refreshed(&self) {
        if self.entries.is_some() {
            count::<A>("refresh");
        }
    }

    /// Forgets a state.
    pub fn forget(&self, id: Uuid) {
        if let Some(entries) = &self.entries {
            entries.invalidate(&id);
        }
    }

    /// Keeps a committed state, unless a newer one is there.
    pub fn put(&self, id: Uuid, loaded: Loaded<A>) {
        let Some(entries) = &self.entries else { return };
        entries.entry(id).and_compute_with(|present| match present {
            Some(present) if present.value().version >= loaded.version => Op::Nop,
            _ => Op::Put(loaded),
        });
    }
}

fn count<A: Aggregate>(result: &'static str) {
    metrics::counter!("epoch_cache_total", "aggregate" => A::NAME, "result" => result).increment(1);
}
