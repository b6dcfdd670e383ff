//! Domain events: types, encoding, versions, and the envelope they travel in.

pub mod avro;
mod domain_event;
pub mod envelope;
mod events_macro;
pub mod version;

pub use domain_event::{CodecError, Decoded, DomainEvent, Encoded, SchemaId};
