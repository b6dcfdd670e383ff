//! Avro encoding of events.
//!
//! A payload is read with its writer's schema and then resolved to the current schema by Avro's rules. An unknown
//! schema is an error; it is never guessed.

mod avro_event;
mod codec;
mod older_schema;
mod schema_text;

pub use avro_event::{AvroEvent, decode_known, encode};
pub use codec::AvroCodec;
pub use schema_text::{InvalidSchema, SchemaText};
#[doc(hidden)]
pub use serde;
