//! Snapshots and their storage.

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use crate::{
    event::{SchemaId, version::Version},
    store::{StoreError, fold::StoredEvent},
};

/// An encoded state at a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The aggregate's name.
    pub aggregate: &'static str,
    /// The aggregate's id.
    pub id: Uuid,
    /// The number of events that the state contains.
    pub version: Version,
    /// [`Aggregate::STATE_SCHEMA`](crate::Aggregate::STATE_SCHEMA) of the program that wrote the state.
    pub schema: u32,
    /// The encoded state.
    pub state: Bytes,
}

/// The maximum length of a snapshot in bytes; longer states are not stored.
pub const MAX_SNAPSHOT_BYTES: usize = 4 * 1024 * 1024;

/// The events from a snapshot's last event on, read together with the snapshot.
#[derive(Debug, Clone, Default)]
pub struct StreamTail {
    /// The events in version order.
    pub events: Vec<TailEvent>,
    /// Whether the stream ends with the last of them.
    pub complete: bool,
}

/// An owned [`StoredEvent`].
#[derive(Debug, Clone)]
pub struct TailEvent {
    /// The event's place among its aggregate's events.
    pub version: Version,
    /// The event's stored name.
    pub event_name: String,
    /// The writer's schema.
    pub schema: SchemaId,
    /// One Avro datum.
    pub payload: Bytes,
}

impl TailEvent {
    pub(crate) fn as_stored(&self) -> StoredEvent<'_> {
        let Self { version, event_name, schema, payload } = self;
        StoredEvent { version: *version, event_name, schema: *schema, payload }
    }
}

/// Stores the newest snapshot of each aggregate.
#[async_trait]
pub trait SnapshotStore: Send + Sync + 'static {
    /// Returns an aggregate's snapshot.
    ///
    /// # Errors
    /// [`StoreError`] when reading fails.
    async fn newest(&self, aggregate: &'static str, id: Uuid) -> Result<Option<Snapshot>, StoreError>;

    /// Returns an aggregate's snapshot with the following events, where one query can read both.
    ///
    /// Saves a round trip. A store that is separate from the log returns the snapshot with an empty tail.
    ///
    /// # Errors
    /// As [`newest`](Self::newest).
    async fn newest_with_tail(
        &self,
        aggregate: &'static str,
        id: Uuid,
    ) -> Result<Option<(Snapshot, StreamTail)>, StoreError> {
        Ok(self.newest(aggregate, id).await?.map(|snapshot| (snapshot, StreamTail::default())))
    }

    /// Stores snapshots of distinct aggregates, passed in ascending order of name and id.
    ///
    /// A snapshot older than the stored one is dropped; one of the same version replaces it.
    ///
    /// # Errors
    /// [`StoreError`] when writing fails.
    async fn save(&self, snapshots: &[Snapshot]) -> Result<(), StoreError>;

    /// Deletes an aggregate's snapshot.
    ///
    /// # Errors
    /// [`StoreError`] when deleting fails.
    async fn discard(&self, aggregate: &'static str, id: Uuid) -> Result<(), StoreError>;
}
