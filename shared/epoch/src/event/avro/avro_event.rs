//! Events that have a codec.

use serde::{Serialize, de::DeserializeOwned};

use super::codec::AvroCodec;
use crate::event::{CodecError, EncodedEvent, SchemaId};

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

    use crate::event::{CodecError, DomainEvent, SchemaId, avro::AvroCodec};

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
