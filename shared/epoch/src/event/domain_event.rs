//! The events of one kind of aggregate, and their encoded form.
//!
//! A payload is encoded once, when it is appended. The same bytes are stored, published and decoded by consumers,
//! together with the fingerprint of the writer's schema. An event is read for years, by programs released independently
//! of its writer.

use std::fmt::Debug;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::event::{CodecError, SchemaId};

/// An event's payload and the schema it was written with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedEvent {
    /// The writer's schema.
    pub schema: SchemaId,
    /// One Avro datum, without a header.
    pub payload: Bytes,
}

/// The current events that one stored event decodes to, in order.
///
/// Usually one; none or several when the stored event is [split](crate::events). One event needs no heap allocation.
pub type DecodedEvents<E> = SmallVec<[E; 1]>;

/// All events of one kind of aggregate; usually implemented by [`events!`](crate::events).
pub trait DomainEvent: Debug + Clone + PartialEq + Send + Sync + 'static {
    /// The stored names of all current events.
    const NAMES: &'static [&'static str];

    /// The current and earlier schemas of each event as JSON documents, also of retired events.
    const SCHEMAS: &'static [&'static [&'static str]];

    /// Whether some stored event decodes to none or several current events.
    const SPLITS: bool;

    /// Returns this event's name in upper camel case.
    fn name(&self) -> &'static str;

    /// Encodes the event with its current schema.
    ///
    /// # Errors
    /// [`CodecError`] when the value does not match the schema.
    fn encode(&self) -> Result<EncodedEvent, CodecError>;

    /// Decodes a stored event into current events.
    ///
    /// # Errors
    /// [`CodecError`] when the name or the schema is unknown or the payload does not match the schema.
    fn decode_all(name: &str, schema: SchemaId, payload: &[u8]) -> Result<DecodedEvents<Self>, CodecError>;

    /// Decodes a stored event into exactly one current event.
    ///
    /// Does not compile for a type that [splits](Self::SPLITS) events.
    ///
    /// # Errors
    /// As [`decode_all`](Self::decode_all).
    fn decode(name: &str, schema: SchemaId, payload: &[u8]) -> Result<Self, CodecError> {
        const { assert!(!Self::SPLITS, "this event type splits stored events: use decode_all") };
        let detail = || CodecError::Decode { name: name.to_owned(), detail: "no event was decoded".to_owned() };
        Self::decode_all(name, schema, payload)?.pop().ok_or_else(detail)
    }
}
