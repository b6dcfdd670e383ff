//! An event with everything known about it.
//!
//! The problem: whoever receives an event, in the process, over a bus or by replay, must see the same thing.
//! The invariant: an envelope is made once, by the store that committed the event, and is never changed afterwards.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    aggregate::Aggregate,
    context::Metadata,
    event::{CodecError, Decoded, DomainEvent, SchemaId},
    timestamp::Timestamp,
    version::{Position, Version},
};

/// A committed event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Names the event (UUIDv7).
    pub event_id: Uuid,
    /// The aggregate's name.
    pub aggregate: Cow<'static, str>,
    /// Which aggregate of that name.
    pub aggregate_id: Uuid,
    /// The event's place among the aggregate's events, from 1.
    pub version: Version,
    /// The event's place in its store.
    pub position: Position,
    /// The event's name.
    pub event_name: Cow<'static, str>,
    /// The schema the payload was written with.
    pub schema: SchemaId,
    /// One Avro datum.
    pub payload: Bytes,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// When the store took it.
    pub recorded_at: Timestamp,
    /// Who and why.
    pub metadata: Metadata,
}

/// Events on their way to subscriptions; several of them share one copy.
pub type Batch = [Arc<Envelope>];

/// Which aggregate an event belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey {
    /// The aggregate's name.
    pub aggregate: Cow<'static, str>,
    /// Which aggregate of that name.
    pub id: Uuid,
}

impl Envelope {
    /// The stream this event belongs to.
    #[must_use]
    pub fn stream(&self) -> StreamKey {
        StreamKey { aggregate: self.aggregate.clone(), id: self.aggregate_id }
    }

    /// What the event is today: one event, or none or several when `E` [splits](DomainEvent::SPLITS) some. All of them stand
    /// for this one version.
    ///
    /// # Errors
    /// [`CodecError`] when the payload can't be read as `E`.
    pub fn decode_all<E: DomainEvent>(&self) -> Result<Decoded<E>, CodecError> {
        E::decode_all(&self.event_name, self.schema, &self.payload)
    }

    /// The event itself; for an `E` that splits no events, others don't compile.
    ///
    /// # Errors
    /// [`CodecError`] when the payload can't be read as one of `E`.
    pub fn decode<E: DomainEvent>(&self) -> Result<E, CodecError> {
        E::decode(&self.event_name, self.schema, &self.payload)
    }

    /// The event, when it is one of aggregate `A`; `None` for another aggregate's.
    ///
    /// # Errors
    /// [`CodecError`] when it is of `A` and can't be read.
    pub fn decode_as<A: Aggregate>(&self) -> Result<Option<A::Event>, CodecError> {
        if self.aggregate == A::NAME { self.decode().map(Some) } else { Ok(None) }
    }
}
