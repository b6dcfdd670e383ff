//! Encoding and decoding of one event.

use apache_avro::{Schema, reader::datum::GenericDatumReader, writer::datum::GenericDatumWriter};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::{older_schema::OlderSchemaReader, schema_text::fingerprint};
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
