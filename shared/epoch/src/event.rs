//! Domain events: their types, their Avro encoding, their versions, and the [`Envelope`](envelope::Envelope) that carries
//! one.

pub mod avro;
mod codec_error;
mod domain_event;
pub mod envelope;
mod events_macro;
mod metadata;
mod schema_id;
pub mod version;

pub use codec_error::CodecError;
pub use domain_event::{DecodedEvents, DomainEvent, EncodedEvent};
pub use metadata::Metadata;
pub use schema_id::SchemaId;
