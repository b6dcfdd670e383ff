//! States in tables of their own, committed together with their events.
//!
//! State tables let other queries read an aggregate by SQL and make loading independent of the stream's length.
//! Invariants:
//! - a state is written in the transaction that commits its events, in version order: never without its events, and
//!   never an older state over a newer one;
//! - the log is the authority: a state that lags is folded forward, and a state that the log does not contain is
//!   ignored.

use async_trait::async_trait;
use uuid::Uuid;

use super::error::StoreError;
use crate::{
    aggregate::{Aggregate, VersionedState},
    event::version::Version,
};

/// Stores the states of one type of aggregate in one table, in several tables, or as a blob.
///
/// `X` is the event store's transaction. A state that can no longer be read, because its table or its [schema
/// version](Aggregate::STATE_SCHEMA) changed, is not an error: `get_by_id` returns `None`, the state is folded from
/// events, and the next commit writes it again.
#[async_trait]
pub trait StateStore<A: Aggregate, X: Send + 'static>: Send + Sync + 'static {
    /// Returns the stored state with its version.
    ///
    /// # Errors
    /// [`StoreError`] when reading fails.
    async fn get_by_id(&self, executor: &mut X, id: Uuid) -> Result<Option<VersionedState<A>>, StoreError>;

    /// Inserts or replaces a state and its version.
    ///
    /// # Errors
    /// [`StoreError`] when writing fails; the events are then not committed either.
    async fn persist(&self, executor: &mut X, id: Uuid, state: &VersionedState<A>) -> Result<(), StoreError>;

    /// Deletes the state of a deleted aggregate.
    ///
    /// # Errors
    /// [`StoreError`] when deleting fails; the events are then not committed either.
    async fn delete(&self, executor: &mut X, id: Uuid) -> Result<(), StoreError>;
}

/// The effect of a commit on one aggregate.
#[derive(Debug)]
pub struct Change<A> {
    /// The aggregate's id.
    pub id: Uuid,
    /// The version before the commit.
    pub before: Version,
    /// The state and version after the commit.
    pub after: VersionedState<A>,
    /// Whether the last event is a tombstone.
    pub deleted: bool,
}

impl<A: Aggregate> Change<A> {
    /// Applies `events` to `state`.
    #[must_use]
    pub fn new(id: Uuid, state: VersionedState<A>, events: &[A::Event]) -> Self {
        let before = state.version;
        let mut after = state;
        for event in events {
            after.evolve(event);
        }
        Self { id, before, after, deleted: events.last().is_some_and(A::is_tombstone) }
    }

    /// Writes the state within the transaction of its events. Does nothing when there are no events.
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

/// Encodes a state as JSON, for stores that keep blobs.
///
/// # Errors
/// [`StoreError::Refused`] when the state has no JSON form, for example a map whose keys are not text.
pub fn encode_state<A: Aggregate>(state: &A) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(state)
        .map_err(|error| StoreError::Refused { detail: format!("encoding state of {} failed: {error}", A::NAME) })
}

/// Decodes a state from JSON. Returns `None` for another [`Aggregate::STATE_SCHEMA`] or invalid bytes.
#[must_use]
pub fn decode_state<A: Aggregate>(schema: u32, bytes: &[u8]) -> Option<A> {
    if schema != A::STATE_SCHEMA {
        return None;
    }
    serde_json::from_slice(bytes)
        .inspect_err(|error| tracing::warn!(aggregate = A::NAME, schema, %error, "decoding stored state failed"))
        .ok()
}
