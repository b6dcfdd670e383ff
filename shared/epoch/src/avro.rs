//! Avro payloads, and the macro that makes an event type from its schemas.
//!
//! The problem: naming each event, finding its schema and choosing the writer's schema again on reading is the same
//! code for every event type, and a slip in it is only seen years later.
//!
//! The invariant: a payload is read with the schema it was written with, then resolved to today's by Avro's rules. A
//! schema that isn't known is an error; it is never guessed.

use apache_avro::{
    Schema, from_value, rabin::Rabin, reader::datum::GenericDatumReader, writer::datum::GenericDatumWriter,
};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::event::{CodecError, Encoded, SchemaId};

/// Encodes and decodes one event with its current schema and all earlier ones.
///
/// A codec is made once for the life of the program; its schemas are never freed.
pub struct AvroCodec {
    name: &'static str,
    current: SchemaId,
    writer: GenericDatumWriter<'static>,
    versions: Vec<(SchemaId, GenericDatumReader<'static>)>,
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
        let plain = GenericDatumReader::builder(today)
            .human_readable(true)
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        let current = fingerprint(today);
        let mut versions = vec![(current, plain)];
        for &schema in earlier {
            let resolving = GenericDatumReader::builder(schema)
                .reader_schema(today)
                .human_readable(true)
                .build()
                .map_err(|error| invalid(error.to_string()))?;
            versions.push((fingerprint(schema), resolving));
        }
        Ok(Self { name, current, writer, versions })
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
        let payload = self
            .writer
            .write_ser_to_vec(value)
            .map_err(|error| CodecError::Encode { name: self.name.to_owned(), detail: error.to_string() })?;
        Ok(Encoded { schema: self.current, payload: Bytes::from(payload) })
    }

    /// Decodes what was written with `schema`.
    ///
    /// # Errors
    /// [`CodecError::UnknownSchema`] or [`CodecError::Decode`]; bytes left over are an error too.
    pub fn decode<T: DeserializeOwned>(&self, schema: SchemaId, mut payload: &[u8]) -> Result<T, CodecError> {
        let Some((_, reader)) = self.versions.iter().find(|(known, _)| *known == schema) else {
            return Err(CodecError::UnknownSchema { name: self.name.to_owned(), schema });
        };
        let bytes = &mut payload;
        let decoded = if schema == self.current {
            reader.read_deser(bytes)
        } else {
            reader.read_value(bytes).and_then(|value| from_value(&value))
        };
        let value =
            decoded.map_err(|error| CodecError::Decode { name: self.name.to_owned(), detail: error.to_string() })?;
        if !payload.is_empty() {
            let detail = format!("{} bytes are left over", payload.len());
            return Err(CodecError::Decode { name: self.name.to_owned(), detail });
        }
        Ok(value)
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

/// Decodes an event with its own codec.
///
/// # Errors
/// As [`AvroCodec::new`] and [`AvroCodec::decode`].
pub fn decode<E: AvroEvent>(schema: SchemaId, payload: &[u8]) -> Result<E, CodecError> {
    E::codec().as_ref().map_err(Clone::clone)?.decode(schema, payload)
}

/// Makes an enum of events out of structs and their Avro schemas.
///
/// ```
/// use epoch::DomainEvent;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
/// struct MoneyDeposited {
///     cents: i64,
///     note: Option<String>,
/// }
///
/// const TODAY: &str = r#"{"type": "record", "name": "MoneyDeposited", "fields": [
///     {"name": "cents", "type": "long"}, {"name": "note", "type": ["null", "string"], "default": null}]}"#;
/// const BEFORE: &str = r#"{"type": "record", "name": "MoneyDeposited", "fields": [{"name": "cents", "type": "long"}]}"#;
///
/// epoch::events! {
///     /// What happens to an account.
///     enum AccountEvent { MoneyDeposited = [TODAY, BEFORE] }
/// }
///
/// let event = AccountEvent::from(MoneyDeposited { cents: 5, note: None });
/// let encoded = event.encode()?;
/// assert_eq!(AccountEvent::decode("MoneyDeposited", encoded.schema, &encoded.payload)?, event);
/// # Ok::<(), epoch::event::CodecError>(())
/// ```
///
/// Each name is a struct in scope that implements `Serialize`, `Deserialize`, `Debug`, `Clone` and `PartialEq`; the list has today's
/// schema first, then all earlier ones. It expands to the enum with one variant a struct, `From<Struct>` for each,
/// [`DomainEvent`](crate::event::DomainEvent) for the enum and [`AvroEvent`] for each struct.
#[macro_export]
macro_rules! events {
    ($(#[$meta:meta])* $visibility:vis enum $name:ident { $($event:ident = [$($schema:expr),+ $(,)?]),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs)]
        $visibility enum $name { $($event($event)),+ }

        $(impl From<$event> for $name {
            fn from(event: $event) -> Self {
                Self::$event(event)
            }
        })+

        impl $crate::event::DomainEvent for $name {
            const NAMES: &'static [&'static str] = &[$(stringify!($event)),+];

            fn name(&self) -> &'static str {
                match self { $(Self::$event(_) => stringify!($event)),+ }
            }

            fn encode(&self) -> Result<$crate::event::Encoded, $crate::event::CodecError> {
                match self { $(Self::$event(event) => $crate::avro::encode(event)),+ }
            }

            fn decode(
                name: &str,
                schema: $crate::event::SchemaId,
                payload: &[u8],
            ) -> Result<Self, $crate::event::CodecError> {
                match name {
                    $(stringify!($event) => $crate::avro::decode(schema, payload).map(Self::$event),)+
                    _ => Err($crate::event::CodecError::UnknownEvent { name: name.to_owned() }),
                }
            }
        }

        $(impl $crate::avro::AvroEvent for $event {
            fn codec() -> &'static Result<$crate::avro::AvroCodec, $crate::event::CodecError> {
                static CODEC: std::sync::LazyLock<Result<$crate::avro::AvroCodec, $crate::event::CodecError>> =
                    std::sync::LazyLock::new(|| $crate::avro::AvroCodec::new(stringify!($event), &[$($schema),+]));
                &CODEC
            }
        })+
    };
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
