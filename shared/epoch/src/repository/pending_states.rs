//! States that aren't committed yet.
//!
//! The problem: while one command's events are on their way to the store, every other command on the same aggregate would be
//! decided on a state that is about to be old, and lose. One hot aggregate then commits once a disk flush, whoever many ask.
//!
//! The invariant: a tip is a starting point, never an authority. What is decided on it names the event it stands on
//! ([`Append::previous`](crate::store::Append::previous)), so that it is committed behind exactly that event or not at all; a refusal
//! made on it is made again on what is committed. A tip lives only while appends are on their way, and ends with the first that fails.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use uuid::Uuid;

use crate::{aggregate::Aggregate, cache::Loaded, state::Change, store::Append, version::Version};

/// How many locks the tips are spread over.
const SHARDS: usize = 64;

/// The newest state of an aggregate, committed or not.
struct Tip<A> {
    loaded: Loaded<A>,
    /// The event that made it.
    last: Uuid,
    /// Appends on their way.
    flights: usize,
    /// Tells this row of appends from an earlier one of the same aggregate.
    row: Uuid,
}

type Shard<A> = Mutex<HashMap<Uuid, Tip<A>>>;

/// The tips of one kind of aggregate in this process.
#[derive(Clone)]
pub(crate) struct Tips<A> {
    shards: Arc<[Shard<A>; SHARDS]>,
}

/// What a command is decided on.
pub(crate) struct Base<A> {
    pub(crate) loaded: Loaded<A>,
    /// The event that made the state, when it isn't committed yet.
    pub(crate) previous: Option<Uuid>,
}

/// What was decided.
pub(crate) struct Decided<A> {
    /// What to ask of the store, if anything.
    pub(crate) append: Option<Append>,
    /// What that does to the aggregate.
    pub(crate) change: Change<A>,
}

/// A decision, what it was made on, and the append that was started for it when it has events.
pub(crate) struct Attempt<A: Aggregate, E, F> {
    pub(crate) decided: Result<Decided<A>, E>,
    /// The version it was made at.
    pub(crate) at: Version,
    /// Whether the state it was made on wasn't committed yet.
    pub(crate) speculative: bool,
    pub(crate) started: Option<(Flight<A>, F)>,
}

/// An append on its way. Dropped without [`landed`](Flight::landed), it counts as failed.
pub(crate) struct Flight<A: Aggregate> {
    tips: Tips<A>,
    id: Uuid,
    row: Option<Uuid>,
}

impl<A: Aggregate> Tips<A> {
    pub(crate) fn new() -> Self {
        Self { shards: Arc::new(std::array::from_fn(|_| Mutex::default())) }
    }

    fn shard(&self, id: Uuid) -> MutexGuard<'_, HashMap<Uuid, Tip<A>>> {
        let [.., last] = id.into_bytes();
        // Every change is whole before it is visible, also when a decision panics.
        self.shards[usize::from(last) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides on the newest state there is: the tip, or `loaded` where there is none, it is older, or only what is committed will do.
    /// The state after a decision becomes the tip. `decide` and `start` run under a lock, so that the next command sees what was decided
    /// and its append comes behind.
    pub(crate) fn decide<E, F>(
        &self,
        id: Uuid,
        loaded: &Loaded<A>,
        committed_only: bool,
        decide: impl FnOnce(&Base<A>) -> Result<Decided<A>, E>,
        start: impl FnOnce(Append) -> F,
    ) -> Attempt<A, E, F> {
        let mut shard = self.shard(id);
        let tip = shard.get(&id).filter(|tip| !committed_only && tip.loaded.version >= loaded.version);
        let base = match tip {
            Some(tip) => Base { loaded: tip.loaded.clone(), previous: Some(tip.last) },
            None => Base { loaded: loaded.clone(), previous: None },
        };
        let (at, speculative) = (base.loaded.version, base.previous.is_some());
        let mut decided = decide(&base);
        let Ok(Decided { append, change }) = &mut decided else {
            return Attempt { decided, at, speculative, started: None };
        };
        let Some((last, append)) = append.take_if(|append| !append.events.is_empty()).and_then(|append| {
            let last = append.events.last()?.event_id;
            Some((last, append))
        }) else {
            return Attempt { decided, at, speculative, started: None };
        };
        let row = Self::put(&mut shard, id, change.after.clone(), last, &base);
        let appending = start(append);
        drop(shard);
        Attempt { decided, at, speculative, started: Some((Flight { tips: self.clone(), id, row }, appending)) }
    }

    /// Makes the state the tip; not when a row of appends is on its way that it isn't part of.
    fn put(shard: &mut HashMap<Uuid, Tip<A>>, id: Uuid, loaded: Loaded<A>, last: Uuid, base: &Base<A>) -> Option<Uuid> {
        match shard.get_mut(&id) {
            Some(tip) if base.previous == Some(tip.last) => {
                tip.loaded = loaded;
                tip.last = last;
                tip.flights += 1;
                Some(tip.row)
            }
            Some(tip) if base.loaded.version < tip.loaded.version => None,
            // None, or one that others have overtaken.
            _ => {
                shard.insert(id, Tip { loaded, last, flights: 1, row: last });
                Some(last)
            }
        }
    }
}

impl<A: Aggregate> Flight<A> {
    /// The append was committed.
    pub(crate) fn landed(mut self) {
        let Some(row) = self.row.take() else { return };
        let mut shard = self.tips.shard(self.id);
        let Some(tip) = shard.get_mut(&self.id).filter(|tip| tip.row == row) else { return };
        tip.flights -= 1;
        if tip.flights == 0 {
            shard.remove(&self.id);
        }
    }
}

impl<A: Aggregate> Drop for Flight<A> {
    fn drop(&mut self) {
        let Some(row) = self.row else { return };
        let mut shard = self.tips.shard(self.id);
        if shard.get(&self.id).is_some_and(|tip| tip.row == row) {
            shard.remove(&self.id);
        }
    }
}
