//! Errors of encoding and decoding events.

use crate::event::SchemaId;

/// Why an event could not be encoded or decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// No event of this type has the stored name.
    #[error("unknown event {name}")]
    UnknownEvent {
        /// The stored name.
        name: String,
    },
    /// The payload was written with a schema that this program does not list.
    #[error("event {name} was written with unknown schema {schema}")]
    UnknownSchema {
        /// The event's name.
        name: String,
        /// The writer's schema.
        schema: SchemaId,
    },
    /// A schema in the program itself is not valid Avro.
    #[error("invalid schema of event {name}: {detail}")]
    InvalidSchema {
        /// The event's name.
        name: String,
        /// The parser's message.
        detail: String,
    },
    /// The value does not match the schema it is written with.
    #[error("encoding event {name} failed: {detail}")]
    Encode {
        /// The event's name.
        name: String,
        /// The encoder's message.
        detail: String,
    },
    /// The payload does not match the schema it was written with.
    #[error("decoding event {name} failed: {detail}")]
    Decode {
        /// The event's name.
        name: String,
        /// The decoder's message.
        detail: String,
    },
}
