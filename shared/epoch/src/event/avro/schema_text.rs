//! Schemas as JSON documents, and their fingerprints.

use std::fmt;

use apache_avro::{Schema, rabin::Rabin};

use crate::event::SchemaId;

/// A schema to be registered or published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaText {
    /// The fingerprint that envelopes carry.
    pub id: SchemaId,
    /// The record's full name, as in `catacloud.file.FileDeleted`.
    pub record: String,
    /// The schema as a JSON document.
    pub json: String,
}

/// The document is not the schema of an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an Avro record schema: {detail}")]
pub struct InvalidSchema {
    /// The parser's message.
    pub detail: String,
}

impl SchemaText {
    /// Parses a JSON document.
    ///
    /// # Errors
    /// [`InvalidSchema`] when it is not valid Avro or not a record.
    pub fn parse(json: &str) -> Result<Self, InvalidSchema> {
        let invalid = |detail: &dyn fmt::Display| InvalidSchema { detail: detail.to_string() };
        let schema = Schema::parse_str(json).map_err(|error| invalid(&error))?;
        let Schema::Record(record) = &schema else { return Err(invalid(&"the type is not a record")) };
        Ok(Self { id: fingerprint(&schema), record: record.name.fullname(None), json: json.to_owned() })
    }
}

/// Returns the CRC-64-AVRO fingerprint of a schema.
pub(super) fn fingerprint(schema: &Schema) -> SchemaId {
    // The Avro specification writes the fingerprint in little-endian order.
    let bytes = schema.fingerprint::<Rabin>().bytes;
    let mut number = [0; 8];
    for (target, byte) in number.iter_mut().zip(bytes) {
        *target = byte;
    }
    SchemaId::new(u64::from_le_bytes(number))
}
