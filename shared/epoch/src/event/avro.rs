//! Avro payloads.
//!
//! The problem: an event is read years after it was written, by a program that has another schema for it by then.
//!
//! The invariant: a payload is read with the schema it was written with, then resolved to today's by Avro's rules. A
//! schema that isn't known is an error; it is never guessed.

mod older_schema;

use std::fmt;

use apache_avro::{Schema, rabin::Rabin, reader::datum::GenericDatumReader, writer::datum::GenericDatumWriter};
use bytes::Bytes;
#[doc(hidden)]
pub use serde;
use serde::{Serialize, de::DeserializeOwned};

use self::older_schema::Earlier;
use crate::event::{CodecError, Encoded, SchemaId};

/// Room for a usual event: it is written field by field, and would else be moved about while it grows.
const USUAL_BYTES: usize = 256;

/// Encodes and decodes one event with its current schema and all earlier ones.
///
/// A codec is made once for the life of the program; its schemas are never freed.
pub struct AvroCodec {
    name: &'static str,
    current: SchemaId,
    writer: GenericDatumWriter<'static>,
    reader: GenericDatumReader<'static>,
    /// Readers of what was written with earlier schemas; they resolve to today's.
    earlier: Vec<(SchemaId, Earlier)>,
}

impl AvroCodec {
    /// A codec for the event `name`; `schemas` are JSON documents, today's first, then the earlier ones.
    ///
    /// # Errors
    /// [`CodecError::InvalidSchema`] when one of them isn't valid Avro, or none is given.
    pub fn new(name: &'static str, schemas: &[&str]) -> Result<Self, CodecError> {
        let invalid = |detail: String| CodecError::InvalidSchema { name: name.to_owned(), detail };
        let parsed: Vec<&'static Schema> = schemas
            .iter()
            .map(|json| Schema::parse_str(json).map(|schema| &*Box::leak(Box::new(schema))))
            .collect::<Result<_, _>>()
            .map_err(|error| invalid(error.to_string()))?;
        let Some((&today, earlier)) = parsed.split_first() else {
            return Err(invalid("no schema".to_owned()));
        };
        let writer = GenericDatumWriter::builder(today)
            .human_readable(true)
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        let reader = GenericDatumReader::builder(today)
            .human_readable(true)
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        let current = fingerprint(today);
        let mut readers = Vec::with_capacity(earlier.len());
        for &schema in earlier {
            let resolving = Earlier::new(schema, today).map_err(|error| invalid(error.to_string()))?;
            readers.push((fingerprint(schema), resolving));
        }
        Ok(Self { name, current, writer, reader, earlier: readers })
    }

    /// The schema that new events are written with.
    #[must_use]
    pub fn schema(&self) -> SchemaId {
        self.current
    }

    /// Encodes with today's schema.
    ///
    /// # Errors
    /// [`CodecError::Encode`] when the value doesn't fit it.
    pub fn encode<T: Serialize>(&self, value: &T) -> Result<Encoded, CodecError> {
        let mut payload = Vec::with_capacity(USUAL_BYTES);
        self.writer
            .write_ser(&mut payload, value)
            .map_err(|error| CodecError::Encode { name: self.name.to_owned(), detail: error.to_string() })?;
        Ok(Encoded { schema: self.current, payload: Bytes::from(payload) })
    }

    /// Decodes what was written with `schema`; `None` when the codec doesn't have that schema.
    ///
    /// # Errors
    /// [`CodecError::Decode`]; bytes left over are an error too.
    pub fn decode_known<T: DeserializeOwned>(
        &self,
        schema: SchemaId,
        mut payload: &[u8],
    ) -> Result<Option<T>, CodecError> {
        let bytes = &mut payload;
        let decoded = if schema == self.current {
            self.reader.read_deser(bytes)
        } else {
            let Some((_, resolving)) = self.earlier.iter().find(|(known, _)| *known == schema) else {
                return Ok(None);
            };
            resolving.read(&self.reader, bytes)
        };
        let value =
            decoded.map_err(|error| CodecError::Decode { name: self.name.to_owned(), detail: error.to_string() })?;
        if !payload.is_empty() {
            let detail = format!("{} bytes are left over", payload.len());
            return Err(CodecError::Decode { name: self.name.to_owned(), detail });
        }
        Ok(Some(value))
    }

    /// Decodes what was written with `schema`.
    ///
    /// # Errors
    /// [`CodecError::UnknownSchema`] or [`CodecError::Decode`].
    pub fn decode<T: DeserializeOwned>(&self, schema: SchemaId, payload: &[u8]) -> Result<T, CodecError> {
        let unknown = || CodecError::UnknownSchema { name: self.name.to_owned(), schema };
        self.decode_known(schema, payload)?.ok_or_else(unknown)
    }
}

/// A schema as others are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaText {
    /// The fingerprint that envelopes carry.
    pub id: SchemaId,
    /// The record's full name, as in `catacloud.file.FileDeleted`.
    pub record: String,
    /// The JSON document.
    pub json: String,
}

/// A document that isn't the schema of an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the Avro schema of a record: {detail}")]
pub struct InvalidSchema {
    /// What the parser said.
    pub detail: String,
}

impl SchemaText {
    /// Reads a JSON document.
    ///
    /// # Errors
    /// [`InvalidSchema`] when it isn't valid Avro, or not a record.
    pub fn parse(json: &str) -> Result<Self, InvalidSchema> {
        let invalid = |detail: &dyn fmt::Display| InvalidSchema { detail: detail.to_string() };
        let schema = Schema::parse_str(json).map_err(|error| invalid(&error))?;
        let Schema::Record(record) = &schema else { return Err(invalid(&"it is another type")) };
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

/// A struct that is one event, with the codec made from its schemas; implemented by [`events!`](crate::events).
pub trait AvroEvent: Serialize + DeserializeOwned {
    /// The codec, made on first use, or why a schema of the program isn't valid.
    fn codec() -> &'static Result<AvroCodec, CodecError>;
}

/// Encodes an event with its own codec.
///
/// # Errors
/// As [`AvroCodec::new`] and [`AvroCodec::encode`].
pub fn encode<E: AvroEvent>(event: &E) -> Result<Encoded, CodecError> {
    E::codec().as_ref().map_err(Clone::clone)?.encode(event)
}

/// Decodes an event with its own codec; `None` when that doesn't have the schema.
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
    fn an_event_decodes_to_itself() {
        let event = NoteEvent::from(noted());
        let encoded = event.encode().unwrap();
        assert_eq!(NoteEvent::decode("Noted", encoded.schema, &encoded.payload), Ok(event));
    }

    #[test]
    fn an_event_written_with_an_earlier_schema_gets_the_defaults() {
        let old = AvroCodec::new("Noted", &[FIRST]).unwrap();
        let encoded = old.encode(&OldNoted { id: Uuid::from_u128(7), at: 42 }).unwrap();
        let expected = Noted { tags: vec![], note: None, ..noted() };
        let decoded = NoteEvent::decode("Noted", encoded.schema, &encoded.payload);
        assert_eq!(decoded, Ok(NoteEvent::Noted(expected)));
    }

    #[test]
    fn what_is_not_known_is_never_guessed() {
        let encoded = NoteEvent::from(noted()).encode().unwrap();
        let stranger = SchemaId::new(1);
        assert!(matches!(
            NoteEvent::decode("Noted", stranger, &encoded.payload),
            Err(CodecError::UnknownSchema { schema, .. }) if schema == stranger
        ));
        assert!(matches!(
            NoteEvent::decode("Forgotten", encoded.schema, &encoded.payload),
            Err(CodecError::UnknownEvent { .. })
        ));
    }

    #[test]
    fn cut_and_padded_payloads_are_errors() {
        let encoded = NoteEvent::from(noted()).encode().unwrap();
        let cut = &encoded.payload[..encoded.payload.len() - 1];
        assert!(matches!(NoteEvent::decode("Noted", encoded.schema, cut), Err(CodecError::Decode { .. })));
        let padded = [&encoded.payload[..], &[0]].concat();
        assert!(matches!(NoteEvent::decode("Noted", encoded.schema, &padded), Err(CodecError::Decode { .. })));
    }
}
