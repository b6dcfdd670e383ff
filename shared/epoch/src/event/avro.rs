//! Avro encoding of events.
//!
//! A payload is read with its writer's schema and then resolved to the current schema by Avro's rules. An unknown
//! schema is an error; it is never guessed.

mod older_schema;

use std::fmt;

use apache_avro::{Schema, rabin::Rabin, reader::datum::GenericDatumReader, writer::datum::GenericDatumWriter};
use bytes::Bytes;
#[doc(hidden)]
pub use serde;
use serde::{Serialize, de::DeserializeOwned};

use self::older_schema::OlderSchemaReader;
use crate::event::{CodecError, EncodedEvent, SchemaId};

/// Initial capacity of a payload in bytes: fits most events, so that writing field by field does not reallocate.
const PAYLOAD_CAPACITY: usize = 256;

/// Encodes one event with its current schema and decodes it with that or any earlier schema.
///
/// Create a codec once per program: its schemas are leaked.
pub struct AvroCodec {
    name: &'static str,
    current: SchemaId,
    writer: GenericDatumWriter<'static>,
    reader: GenericDatumReader<'static>,
    /// Readers of payloads with earlier schemas; they resolve to the current schema.
    older: Vec<(SchemaId, OlderSchemaReader)>,
}

impl AvroCodec {
    /// Creates the codec of the event `name`; `schemas` are JSON documents, the current one first.
    ///
    /// # Errors
    /// [`CodecError::InvalidSchema`] when `schemas` is empty or one of them is not valid Avro.
    pub fn new(name: &'static str, schemas: &[&str]) -> Result<Self, CodecError> {
        let invalid = |detail: String| CodecError::InvalidSchema { name: name.to_owned(), detail };
        let parsed: Vec<&'static Schema> = schemas
            .iter()
            .map(|json| Schema::parse_str(json).map(|schema| &*Box::leak(Box::new(schema))))
            .collect::<Result<_, _>>()
            .map_err(|error| invalid(error.to_string()))?;
        let Some((&newest, older)) = parsed.split_first() else {
            return Err(invalid("no schema given".to_owned()));
        };
        let writer = GenericDatumWriter::builder(newest)
            .human_readable(true)
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        let reader = GenericDatumReader::builder(newest)
            .human_readable(true)
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        let current = fingerprint(newest);
        let mut readers = Vec::with_capacity(older.len());
        for &schema in older {
            let reader = OlderSchemaReader::new(schema, newest).map_err(|error| invalid(error.to_string()))?;
            readers.push((fingerprint(schema), reader));
        }
        Ok(Self { name, current, writer, reader, older: readers })
    }

    /// Returns the current schema, which new events are written with.
    #[must_use]
    pub fn schema(&self) -> SchemaId {
        self.current
    }

    /// Encodes a value with the current schema.
    ///
    /// # Errors
    /// [`CodecError::Encode`] when the value does not match the schema.
    pub fn encode<T: Serialize>(&self, value: &T) -> Result<EncodedEvent, CodecError> {
        let mut payload = Vec::with_capacity(PAYLOAD_CAPACITY);
        self.writer
            .write_ser(&mut payload, value)
            .map_err(|error| CodecError::Encode { name: self.name.to_owned(), detail: error.to_string() })?;
        Ok(EncodedEvent { schema: self.current, payload: Bytes::from(payload) })
    }

    /// Decodes a payload written with `schema`. Returns `None` when the codec does not have that schema.
    ///
    /// # Errors
    /// [`CodecError::Decode`] when the payload does not match the schema or is longer than one datum.
    pub fn decode_known<T: DeserializeOwned>(
        &self,
        schema: SchemaId,
        mut payload: &[u8],
    ) -> Result<Option<T>, CodecError> {
        let bytes = &mut payload;
        let decoded = if schema == self.current {
            self.reader.read_deser(bytes)
        } else {
            let Some((_, older)) = self.older.iter().find(|(known, _)| *known == schema) else {
                return Ok(None);
            };
            older.read(&self.reader, bytes)
        };
        let value =
            decoded.map_err(|error| CodecError::Decode { name: self.name.to_owned(), detail: error.to_string() })?;
        if !payload.is_empty() {
            let detail = format!("{} trailing bytes", payload.len());
            return Err(CodecError::Decode { name: self.name.to_owned(), detail });
        }
        Ok(Some(value))
    }

    /// Decodes a payload written with `schema`.
    ///
    /// # Errors
    /// [`CodecError::UnknownSchema`] or [`CodecError::Decode`].
    pub fn decode<T: DeserializeOwned>(&self, schema: SchemaId, payload: &[u8]) -> Result<T, CodecError> {
        let unknown = || CodecError::UnknownSchema { name: self.name.to_owned(), schema };
        self.decode_known(schema, payload)?.ok_or_else(unknown)
    }
}

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

fn fingerprint(schema: &Schema) -> SchemaId {
    // The Avro specification writes the fingerprint in little-endian order.
    let bytes = schema.fingerprint::<Rabin>().bytes;
    let mut number = [0; 8];
    for (target, byte) in number.iter_mut().zip(bytes) {
        *target = byte;
    }
    SchemaId::new(u64::from_le_bytes(number))
}

/// A struct that is one event and has a codec; implemented by [`events!`](crate::events).
pub trait AvroEvent: Serialize + DeserializeOwned {
    /// Returns the codec, created on first use, or the error of an invalid schema.
    fn codec() -> &'static Result<AvroCodec, CodecError>;
}

/// Encodes an event with its own codec.
///
/// # Errors
/// As [`AvroCodec::new`] and [`AvroCodec::encode`].
pub fn encode<E: AvroEvent>(event: &E) -> Result<EncodedEvent, CodecError> {
    E::codec().as_ref().map_err(Clone::clone)?.encode(event)
}

/// Decodes an event with its own codec. Returns `None` when the codec does not have the schema.
///
/// # Errors
/// As [`AvroCodec::new`] and [`AvroCodec::decode_known`].
pub fn decode_known<E: AvroEvent>(schema: SchemaId, payload: &[u8]) -> Result<Option<E>, CodecError> {
    E::codec().as_ref().map_err(Clone::clone)?.decode_known(schema, payload)
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};
    use uuid::Uuid;

    use crate::event::{CodecError, DomainEvent, SchemaId};

    use super::AvroCodec;

    const FIRST: &str = r#"{"type":"record","name":"Noted","namespace":"test","fields":[
        {"name":"id","type":{"type":"string","logicalType":"uuid"}},
        {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#;
    const SECOND: &str = r#"{"type":"record","name":"Noted","namespace":"test","fields":[
        {"name":"id","type":{"type":"string","logicalType":"uuid"}},
        {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
        {"name":"tags","type":{"type":"array","items":"string"},"default":[]},
        {"name":"note","type":["null","string"],"default":null}]}"#;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Noted {
        id: Uuid,
        at: i64,
        tags: Vec<String>,
        note: Option<String>,
    }

    #[derive(Serialize)]
    struct OldNoted {
        id: Uuid,
        at: i64,
    }

    crate::events! {
        /// Events of the test.
        enum NoteEvent { Noted = [SECOND, FIRST] }
    }

    fn noted() -> Noted {
        Noted { id: Uuid::from_u128(7), at: 42, tags: vec!["a".into()], note: Some("b".into()) }
    }

    #[test]
    fn event_decodes_to_itself() {
        let event = NoteEvent::from(noted());
        let encoded = event.encode().unwrap();
        assert_eq!(NoteEvent::decode("Noted", encoded.schema, &encoded.payload), Ok(event));
    }

    #[test]
    fn event_with_earlier_schema_gets_field_defaults() {
        let old = AvroCodec::new("Noted", &[FIRST]).unwrap();
        let encoded = old.encode(&OldNoted { id: Uuid::from_u128(7), at: 42 }).unwrap();
        let expected = Noted { tags: vec![], note: None, ..noted() };
        let decoded = NoteEvent::decode("Noted", encoded.schema, &encoded.payload);
        assert_eq!(decoded, Ok(NoteEvent::Noted(expected)));
    }

    #[test]
    fn unknown_name_or_schema_is_an_error() {
        let encoded = NoteEvent::from(noted()).encode().unwrap();
        let unknown = SchemaId::new(1);
        assert!(matches!(
            NoteEvent::decode("Noted", unknown, &encoded.payload),
            Err(CodecError::UnknownSchema { schema, .. }) if schema == unknown
        ));
        assert!(matches!(
            NoteEvent::decode("Forgotten", encoded.schema, &encoded.payload),
            Err(CodecError::UnknownEvent { .. })
        ));
    }

    #[test]
    fn truncated_or_padded_payload_is_an_error() {
        let encoded = NoteEvent::from(noted()).encode().unwrap();
        let truncated = &encoded.payload[..encoded.payload.len() - 1];
        assert!(matches!(NoteEvent::decode("Noted", encoded.schema, truncated), Err(CodecError::Decode { .. })));
        let padded = [&encoded.payload[..], &[0]].concat();
        assert!(matches!(NoteEvent::decode("Noted", encoded.schema, &padded), Err(CodecError::Decode { .. })));
    }
}
