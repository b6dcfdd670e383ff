//! Domain events and how they become bytes.
//!
//! The problem: an event written today is read for years, by programs that don't know each other.
//!
//! The invariant: a payload is encoded once, when it is appended. The same bytes lie in the store, travel on the bus and
//! are decoded by consumers, and they carry the fingerprint of the schema they were written with.

use std::fmt::{self, Debug};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// Names the schema a payload was written with: the CRC-64-AVRO (Rabin) fingerprint of its parsing canonical form.
///
/// Source: Apache Avro 1.12 specification, "Schema Fingerprints".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SchemaId(u64);

impl SchemaId {
    /// The schema with this fingerprint.
    #[must_use]
    pub const fn new(fingerprint: u64) -> Self {
        Self(fingerprint)
    }

    /// The fingerprint.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SchemaId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

/// An event's bytes and the schema they were written with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The writer's schema.
    pub schema: SchemaId,
    /// One Avro datum, without any header.
    pub payload: Bytes,
}

/// What one stored event is today, in order: one event, or none or several when it is [split](crate::events). One is kept
/// without an allocation.
pub type Decoded<E> = SmallVec<[E; 1]>;

/// Everything that can happen to one kind of aggregate; usually made with [`events!`](crate::events).
pub trait DomainEvent: Debug + Clone + PartialEq + Send + Sync + 'static {
    /// The names of all events, as they are stored.
    const NAMES: &'static [&'static str];

    /// For each event, the schemas it is or was written with, as JSON documents; those of former events too.
    const SCHEMAS: &'static [&'static [&'static str]];

    /// Whether a stored event may be none or several of today's.
    const SPLITS: bool;

    /// This event's name, in upper camel case.
    fn name(&self) -> &'static str;

    /// Encodes the event.
    ///
    /// # Errors
    /// [`CodecError`] when the value doesn't fit its schema.
    fn encode(&self) -> Result<Encoded, CodecError>;

    /// What a stored event is today, by its stored name and the schema it was written with.
    ///
    /// # Errors
    /// [`CodecError`] when the name or the schema is unknown or the bytes don't fit the schema.
    fn decode_all(name: &str, schema: SchemaId, payload: &[u8]) -> Result<Decoded<Self>, CodecError>;

    /// The same where a stored event always is exactly one: does not compile for a type that [splits](Self::SPLITS) some.
    ///
    /// # Errors
    /// As [`decode_all`](Self::decode_all).
    fn decode(name: &str, schema: SchemaId, payload: &[u8]) -> Result<Self, CodecError> {
        const { assert!(!Self::SPLITS, "a stored event may be none or several of these: use decode_all") };
        let detail = || CodecError::Decode { name: name.to_owned(), detail: "it became no event".to_owned() };
        Self::decode_all(name, schema, payload)?.pop().ok_or_else(detail)
    }
}

/// Why bytes and events didn't fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The stored name belongs to no event of this type.
    #[error("unknown event {name}")]
    UnknownEvent {
        /// The stored name.
        name: String,
    },
    /// The payload was written with a schema that this program doesn't have.
    #[error("event {name} was written with schema {schema}, which is not known here")]
    UnknownSchema {
        /// The event's name.
        name: String,
        /// The writer's schema.
        schema: SchemaId,
    },
    /// A schema in the program itself is not valid Avro.
    #[error("schema of event {name} is not valid: {detail}")]
    InvalidSchema {
        /// The event's name.
        name: String,
        /// What the parser said.
        detail: String,
    },
    /// The value doesn't fit the schema it should be written with.
    #[error("event {name} doesn't fit its schema: {detail}")]
    Encode {
        /// The event's name.
        name: String,
        /// What the encoder said.
        detail: String,
    },
    /// The bytes don't fit the schema they were written with.
    #[error("payload of event {name} can't be decoded: {detail}")]
    Decode {
        /// The event's name.
        name: String,
        /// What the decoder said.
        detail: String,
    },
}
