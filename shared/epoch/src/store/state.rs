//! States in tables of their own, committed with the events.
//!
//! The problem: others want to read an aggregate's state by SQL, or loading must not depend on the length of the stream; and a
//! state that is written before, after or beside its events is sooner or later another one than theirs.
//!
//! The invariants:
//! - a state is written in the transaction that commits its events, by those who won the race for the version only, and one
//!   after the other: never without its events, never an older one over a newer one;
//! - the log stays the authority: a state that is behind is folded on, one that the log knows nothing of is ignored.

use async_trait::async_trait;
use uuid::Uuid;

use crate::{aggregate::Aggregate, cache::Loaded, store::StoreError, version::Version};

/// Keeps the states of one kind of aggregate: in one table, in several, or as a blob.
///
/// `X` is the transaction to read and write with, as the event store has it. A state that can't be read any more (its table was
/// changed, its [schema](Aggregate::STATE_SCHEMA) is another one) is no error: `get_by_id` gives `None`, and the state is
/// folded from the events and written again with the next ones.
#[async_trait]
pub trait StateStore<A: Aggregate, X: Send + 'static>: Send + Sync + 'static {
    /// The state as it was last written, and the version it was written with.
    ///
    /// # Errors
    /// [`StoreError`] when it can't be read.
    async fn get_by_id(&self, executor: &mut X, id: Uuid) -> Result<Option<Loaded<A>>, StoreError>;

    /// Writes a state and its version over whatever is there.
    ///
    /// # Errors
    /// [`StoreError`] when it can't be written; then the events aren't committed either.
    async fn persist(&self, executor: &mut X, id: Uuid, state: &Loaded<A>) -> Result<(), StoreError>;

    /// Takes a state away; the aggregate was deleted.
    ///
    /// # Errors
    /// [`StoreError`] when it can't be; then the events aren't committed either.
    async fn delete(&self, executor: &mut X, id: Uuid) -> Result<(), StoreError>;
}

/// What a commit does to one aggregate.
#[derive(Debug)]
pub struct Change<A> {
    /// Which aggregate.
    pub id: Uuid,
    /// The version before.
    pub before: Version,
    /// The state and the version after.
    pub after: Loaded<A>,
    /// Whether it ends with a tombstone.
    pub deleted: bool,
}

impl<A: Aggregate> Change<A> {
    /// What `events` do to `loaded`.
    #[must_use]
    pub fn new(id: Uuid, loaded: Loaded<A>, events: &[A::Event]) -> Self {
        let before = loaded.version;
        let mut after = loaded;
        for event in events {
            after.evolve(event);
        }
        Self { id, before, after, deleted: events.last().is_some_and(A::is_tombstone) }
    }

    /// Writes the state with its events' transaction.
    ///
    /// # Errors
    /// As [`StateStore::persist`] and [`StateStore::delete`].
    pub async fn write<X: Send + 'static>(
        &self,
        states: &dyn StateStore<A, X>,
        executor: &mut X,
    ) -> Result<(), StoreError> {
        if self.after.version == self.before {
            return Ok(());
        }
        if self.deleted {
            return states.delete(executor, self.id).await;
        }
        states.persist(executor, self.id, &self.after).await
    }
}

/// A state as bytes (JSON), for those who keep it as a blob.
///
/// # Errors
/// [`StoreError::Refused`] when it isn't possible to write it as JSON, as with maps whose keys aren't text.
pub fn encode_state<A: Aggregate>(state: &A) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(state).map_err(|error| StoreError::Refused { detail: format!("state of {}: {error}", A::NAME) })
}

/// The state of such bytes; `None` when they were written with another [`Aggregate::STATE_SCHEMA`] or can't be read.
#[must_use]
pub fn decode_state<A: Aggregate>(schema: u32, bytes: &[u8]) -> Option<A> {
    if schema != A::STATE_SCHEMA {
        return None;
    }
    serde_json::from_slice(bytes)
        .inspect_err(|error| tracing::warn!(aggregate = A::NAME, schema, %error, "kept state can't be read"))
        .ok()
}
