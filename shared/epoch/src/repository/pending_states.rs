//! States of uncommitted events.
//!
//! Without them, a command that follows an in-flight append would be decided on a state that is about to be outdated,
//! and would meet a conflict. A hot aggregate would then commit one command per disk flush. With them, each command is
//! decided on the state that the previous command produced.
//!
//! A pending state is a starting point, never an authority:
//! - A decision based on it names the event it builds on ([`Append::previous`](crate::store::Append::previous)). The
//!   store commits it directly after that event or not at all.
//! - A rejection based on it is decided again on committed state.
//! - It exists only while appends are in flight and is removed with the first one that fails.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use uuid::Uuid;

use super::decision::Decision;
use crate::{
    aggregate::{Aggregate, VersionedState},
    event::version::Version,
    store::Append,
};

/// How many locks the aggregates share.
const SHARDS: usize = 64;

/// The state after the newest in-flight append of an aggregate.
struct PendingState<A> {
    state: VersionedState<A>,
    /// The event that produced the state.
    last_event: Uuid,
    /// The number of appends in flight.
    in_flight: usize,
    /// Distinguishes this chain of appends from earlier chains of the same aggregate.
    chain: Uuid,
}

type Shard<A> = Mutex<HashMap<Uuid, PendingState<A>>>;

/// The pending states of one type of aggregate in this process.
#[derive(Clone)]
pub(super) struct PendingStates<A> {
    shards: Arc<[Shard<A>; SHARDS]>,
}

/// The state that a command is decided on.
pub(super) struct BaseState<A> {
    pub(super) state: VersionedState<A>,
    /// The event that produced the state, if it is not committed yet.
    pub(super) previous: Option<Uuid>,
}

/// A decision, its base, and the append that was started if it has events.
pub(super) struct Attempt<A: Aggregate, E, F> {
    pub(super) decision: Result<Decision<A>, E>,
    /// The version that the decision is based on.
    pub(super) version: Version,
    /// Whether the base was not committed yet.
    pub(super) speculative: bool,
    pub(super) started: Option<(InFlightAppend<A>, F)>,
}

/// An append in flight. Dropping it without [`committed`](InFlightAppend::committed) marks the append as failed.
pub(super) struct InFlightAppend<A: Aggregate> {
    states: PendingStates<A>,
    id: Uuid,
    chain: Option<Uuid>,
}

impl<A: Aggregate> PendingStates<A> {
    pub(super) fn new() -> Self {
        Self { shards: Arc::new(std::array::from_fn(|_| Mutex::default())) }
    }

    fn shard(&self, id: Uuid) -> MutexGuard<'_, HashMap<Uuid, PendingState<A>>> {
        let [.., last] = id.into_bytes();
        // A poisoned lock is safe to use: each change is one map operation, also when a decision panics before it.
        self.shards[usize::from(last) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides on the newest state and starts the append of its events.
    ///
    /// The base is the pending state, or `state` if there is no pending state, it is older, or `committed_only` is set.
    /// The state after the decision becomes the pending state. `decide` and `start` run under the shard's lock, so that
    /// the next command sees this decision and its append is enqueued after this one.
    pub(super) fn decide<E, F>(
        &self,
        id: Uuid,
        state: &VersionedState<A>,
        committed_only: bool,
        decide: impl FnOnce(&BaseState<A>) -> Result<Decision<A>, E>,
        start: impl FnOnce(Append) -> F,
    ) -> Attempt<A, E, F> {
        let mut shard = self.shard(id);
        let pending = shard.get(&id).filter(|pending| !committed_only && pending.state.version >= state.version);
        let base = match pending {
            Some(pending) => BaseState { state: pending.state.clone(), previous: Some(pending.last_event) },
            None => BaseState { state: state.clone(), previous: None },
        };
        let (version, speculative) = (base.state.version, base.previous.is_some());
        let mut decision = decide(&base);
        let Ok(Decision { append, change }) = &mut decision else {
            return Attempt { decision, version, speculative, started: None };
        };
        let Some((last_event, append)) = append.take_if(|append| !append.events.is_empty()).and_then(|append| {
            let last_event = append.events.last()?.event_id;
            Some((last_event, append))
        }) else {
            return Attempt { decision, version, speculative, started: None };
        };
        let chain = Self::put(&mut shard, id, change.after.clone(), last_event, &base);
        let appending = start(append);
        drop(shard);
        let in_flight = InFlightAppend { states: self.clone(), id, chain };
        Attempt { decision, version, speculative, started: Some((in_flight, appending)) }
    }

    /// Makes `state` the pending state and returns its chain. Returns `None` while a newer chain that `base` is not
    /// part of is in flight.
    fn put(
        shard: &mut HashMap<Uuid, PendingState<A>>,
        id: Uuid,
        state: VersionedState<A>,
        last_event: Uuid,
        base: &BaseState<A>,
    ) -> Option<Uuid> {
        match shard.get_mut(&id) {
            Some(pending) if base.previous == Some(pending.last_event) => {
                pending.state = state;
                pending.last_event = last_event;
                pending.in_flight += 1;
                Some(pending.chain)
            }
            Some(pending) if base.state.version < pending.state.version => None,
            // No pending state, or an outdated one that other processes have overtaken.
            _ => {
                shard.insert(id, PendingState { state, last_event, in_flight: 1, chain: last_event });
                Some(last_event)
            }
        }
    }
}

impl<A: Aggregate> InFlightAppend<A> {
    /// Records that the append was committed. The pending state is removed with the last append of its chain.
    pub(super) fn committed(mut self) {
        let Some(chain) = self.chain.take() else { return };
        let mut shard = self.states.shard(self.id);
        let Some(pending) = shard.get_mut(&self.id).filter(|pending| pending.chain == chain) else { return };
        pending.in_flight -= 1;
        if pending.in_flight == 0 {
            shard.remove(&self.id);
        }
    }
}

impl<A: Aggregate> Drop for InFlightAppend<A> {
    fn drop(&mut self) {
        let Some(chain) = self.chain else { return };
        let mut shard = self.states.shard(self.id);
        if shard.get(&self.id).is_some_and(|pending| pending.chain == chain) {
            shard.remove(&self.id);
        }
    }
}
