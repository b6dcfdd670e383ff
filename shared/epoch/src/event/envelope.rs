//! A committed event with its place in the store and its origin.
//!
//! The store that commits an event creates its envelope once. In-process handlers, buses and replays all deliver equal
//! envelopes.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    event::{
        CodecError, DecodedEvents, DomainEvent, Metadata, SchemaId,
        version::{Position, Version},
    },
    time::timestamp::Timestamp,
};

/// A committed event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The event's id (UUIDv7).
    pub event_id: Uuid,
    /// The aggregate's name.
    pub aggregate: Cow<'static, str>,
    /// The aggregate's id.
    pub aggregate_id: Uuid,
    /// The event's place among its aggregate's events, starting with 1.
    pub version: Version,
    /// The event's place in its store.
    pub position: Position,
    /// The event's stored name.
    pub event_name: Cow<'static, str>,
    /// The writer's schema.
    pub schema: SchemaId,
    /// One Avro datum.
    pub payload: Bytes,
    /// When the event happened, as reported with its command.
    pub occurred_at: Timestamp,
    /// When the store committed the event.
    pub recorded_at: Timestamp,
    /// The event's origin.
    pub metadata: Metadata,
}

/// Events on their way to subscriptions, shared instead of copied.
pub type Batch = [Arc<Envelope>];

/// The name and id of one aggregate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey {
    /// The aggregate's name.
    pub aggregate: Cow<'static, str>,
    /// The aggregate's id.
    pub id: Uuid,
}

impl Envelope {
    /// Returns the key of the stream that this event belongs to.
    #[must_use]
    pub fn stream(&self) -> StreamKey {
        StreamKey { aggregate: self.aggregate.clone(), id: self.aggregate_id }
    }

    /// Decodes the payload into current events: usually one, none or several when `E` [splits](DomainEvent::SPLITS) it.
    ///
    /// All of them share this envelope's version.
    ///
    /// # Errors
    /// [`CodecError`] when the payload cannot be decoded as `E`.
    pub fn decode_all<E: DomainEvent>(&self) -> Result<DecodedEvents<E>, CodecError> {
        E::decode_all(&self.event_name, self.schema, &self.payload)
    }

    /// Decodes the payload into one event. Does not compile for an `E` that splits events.
    ///
    /// # Errors
    /// [`CodecError`] when the payload cannot be decoded as `E`.
    pub fn decode<E: DomainEvent>(&self) -> Result<E, CodecError> {
        E::decode(&self.event_name, self.schema, &self.payload)
    }
}
