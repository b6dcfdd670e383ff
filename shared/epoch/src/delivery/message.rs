//! An event as a message on a bus.
//!
//! Consumers in other languages can read the events without Epoch: a message is a CloudEvent in binary mode. Its body
//! is a [frame](Frame), which names the schema, followed by the stored payload. Reading a message returns an envelope
//! equal to the published one.
//!
//! Sources: CloudEvents 1.0.2, "Kafka Protocol Binding", binary content mode; Apache Avro 1.12, "Single-object
//! encoding"; Confluent Platform, "Wire format" of the schema registry's serializers.

use std::{borrow::Cow, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

pub use super::frame::Frame;
use super::frame::MAX_FRAME_BYTES;
use crate::{
    event::{
        Metadata, SchemaId,
        envelope::Envelope,
        version::{Position, Version},
    },
    time::timestamp::Timestamp,
};

/// A bus message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The aggregate's name, which selects the topic.
    pub aggregate: Cow<'static, str>,
    /// The aggregate's id as lowercase hyphenated text. Messages with the same key stay in order.
    pub key: String,
    /// Header names and values.
    pub headers: Vec<(&'static str, String)>,
    /// The framed payload.
    pub body: Bytes,
}

/// Why a message is not a valid event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// A required header is missing.
    #[error("header {name} is missing")]
    MissingHeader {
        /// The header's name.
        name: &'static str,
    },
    /// A header has an invalid value.
    #[error("invalid header {name}: {value:?}")]
    InvalidHeader {
        /// The header's name.
        name: &'static str,
        /// The header's value.
        value: String,
    },
    /// The body does not start with a known [frame](Frame).
    #[error("body starts with neither an Avro single-object header nor a registry schema id")]
    UnknownFraming,
}

const SCHEMA_PREFIX: &str = "urn:avro:crc64:";

/// Returns the topic of an aggregate's events, for example `catacloud.file.v1`.
#[must_use]
pub fn topic(namespace: &str, aggregate: &str) -> String {
    format!("{namespace}.{aggregate}.v1")
}

impl Message {
    /// Creates the message of an event. `namespace` is the prefix of its type and source, for example `catacloud`.
    #[must_use]
    pub fn of(event: &Envelope, namespace: &str) -> Self {
        Self::framed(event, namespace, Frame::Fingerprint(event.schema))
    }

    /// Creates the message of an event with a given frame, which must name the event's schema.
    #[must_use]
    pub fn framed(event: &Envelope, namespace: &str, frame: Frame) -> Self {
        let key = event.aggregate_id.to_string();
        let mut headers = vec![
            ("ce_specversion", "1.0".to_owned()),
            ("ce_id", event.event_id.to_string()),
            ("ce_type", format!("{namespace}.{}.{}", event.aggregate, event.event_name)),
            ("ce_source", format!("/{namespace}/{}", event.aggregate)),
            ("ce_subject", key.clone()),
            ("ce_time", event.occurred_at.to_string()),
            ("ce_dataschema", format!("{SCHEMA_PREFIX}{}", event.schema)),
            ("ce_partitionkey", key.clone()),
            ("content-type", "application/avro".to_owned()),
            ("version", event.version.to_string()),
            ("position", event.position.to_string()),
            ("recorded_at", event.recorded_at.to_string()),
            ("command", event.metadata.command_id.to_string()),
            ("correlation", event.metadata.correlation_id.to_string()),
        ];
        let optional = [
            ("causation", event.metadata.causation_id.map(|id| id.to_string())),
            ("tenant", event.metadata.tenant.map(|id| id.to_string())),
            ("actor", event.metadata.actor.as_deref().map(str::to_owned)),
            ("traceparent", event.metadata.trace_context.as_deref().map(str::to_owned)),
        ];
        headers.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
        let mut body = BytesMut::with_capacity(MAX_FRAME_BYTES + event.payload.len());
        frame.put(&mut body);
        body.put_slice(&event.payload);
        Self { aggregate: event.aggregate.clone(), key, headers, body: body.freeze() }
    }

    /// Reads the event of a message; `header` returns a header's value by name.
    ///
    /// When the frame has a registry id, the schema is taken from the producer's `ce_dataschema` header instead of the
    /// registry.
    ///
    /// # Errors
    /// [`MessageError`] when the message is not a valid event.
    pub fn read<'a>(header: impl Fn(&str) -> Option<&'a str>, body: &Bytes) -> Result<Envelope, MessageError> {
        let headers = Headers(header);
        let received = receive(&headers, body)?;
        match received.frame {
            Frame::Fingerprint(schema) => Ok(received.with_schema(schema)),
            Frame::Registered(_) => Ok(received.with_schema(headers.schema()?)),
        }
    }

    /// Reads the event of a message, for consumers that look schemas up in a registry.
    ///
    /// # Errors
    /// [`MessageError`] when the message is not a valid event.
    pub fn receive<'a>(header: impl Fn(&str) -> Option<&'a str>, body: &Bytes) -> Result<ReceivedEvent, MessageError> {
        receive(&Headers(header), body)
    }
}

/// A received event without a resolved schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedEvent {
    /// The body's frame, which names the schema.
    pub frame: Frame,
    /// Its schema is a placeholder until [`with_schema`](Self::with_schema).
    event: Envelope,
}

impl ReceivedEvent {
    /// Returns the aggregate's name.
    #[must_use]
    pub fn aggregate(&self) -> &str {
        &self.event.aggregate
    }

    /// Returns the event with the schema that the frame names.
    #[must_use]
    pub fn with_schema(self, schema: SchemaId) -> Envelope {
        Envelope { schema, ..self.event }
    }
}

impl From<Envelope> for ReceivedEvent {
    fn from(event: Envelope) -> Self {
        Self { frame: Frame::Fingerprint(event.schema), event }
    }
}

fn receive<'a, F: Fn(&str) -> Option<&'a str>>(
    headers: &Headers<F>,
    body: &Bytes,
) -> Result<ReceivedEvent, MessageError> {
    let kind = headers.required("ce_type")?;
    let mut names = kind.rsplit('.');
    let (Some(event_name), Some(aggregate)) = (names.next(), names.next()) else {
        return Err(MessageError::InvalidHeader { name: "ce_type", value: kind.to_owned() });
    };
    let (frame, payload) = Frame::split(body).ok_or(MessageError::UnknownFraming)?;
    let event = Envelope {
        event_id: headers.parsed("ce_id")?,
        aggregate: Cow::Owned(aggregate.to_owned()),
        aggregate_id: headers.parsed("ce_subject")?,
        version: Version::new(headers.parsed("version")?),
        position: Position::new(headers.parsed("position")?),
        event_name: Cow::Owned(event_name.to_owned()),
        schema: SchemaId::new(0),
        payload,
        occurred_at: headers.parsed::<Timestamp>("ce_time")?,
        recorded_at: headers.parsed::<Timestamp>("recorded_at")?,
        metadata: Metadata {
            tenant: headers.optional::<Uuid>("tenant")?,
            actor: headers.text("actor"),
            command_id: headers.parsed("command")?,
            correlation_id: headers.parsed("correlation")?,
            causation_id: headers.optional::<Uuid>("causation")?,
            trace_context: headers.text("traceparent"),
        },
    };
    Ok(ReceivedEvent { frame, event })
}

struct Headers<F>(F);

impl<'a, F: Fn(&str) -> Option<&'a str>> Headers<F> {
    fn required(&self, name: &'static str) -> Result<&'a str, MessageError> {
        (self.0)(name).ok_or(MessageError::MissingHeader { name })
    }

    fn parsed<T: std::str::FromStr>(&self, name: &'static str) -> Result<T, MessageError> {
        parse(name, self.required(name)?)
    }

    fn optional<T: std::str::FromStr>(&self, name: &'static str) -> Result<Option<T>, MessageError> {
        (self.0)(name).map(|value| parse(name, value)).transpose()
    }

    fn text(&self, name: &'static str) -> Option<Arc<str>> {
        (self.0)(name).map(Arc::from)
    }

    /// Returns the schema's fingerprint from the producer's header.
    fn schema(&self) -> Result<SchemaId, MessageError> {
        let name = "ce_dataschema";
        let value = self.required(name)?;
        let fingerprint = value.strip_prefix(SCHEMA_PREFIX).and_then(|hex| u64::from_str_radix(hex, 16).ok());
        fingerprint.map(SchemaId::new).ok_or_else(|| MessageError::InvalidHeader { name, value: value.to_owned() })
    }
}

fn parse<T: std::str::FromStr>(name: &'static str, value: &str) -> Result<T, MessageError> {
    value.parse().map_err(|_| MessageError::InvalidHeader { name, value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn envelopes() -> impl Strategy<Value = Envelope> {
        let ids = (any::<u128>(), any::<u128>(), any::<Option<u128>>(), any::<u64>());
        let numbers = (1..=u64::MAX, any::<u64>(), 0..4_102_444_800_000_i64, 0..4_102_444_800_000_i64);
        let texts =
            (any::<Option<bool>>(), prop::collection::vec(any::<u8>(), 0..64), "[a-z_]{1,12}", "[A-Z][A-Za-z]{1,12}");
        (ids, numbers, texts).prop_map(|(ids, numbers, texts)| {
            let (event_id, aggregate_id, tenant, schema) = ids;
            let (version, position, occurred_at, recorded_at) = numbers;
            let (is_user, payload, aggregate, event_name) = texts;
            Envelope {
                event_id: Uuid::from_u128(event_id),
                aggregate: Cow::Owned(aggregate),
                aggregate_id: Uuid::from_u128(aggregate_id),
                version: Version::new(version),
                position: Position::new(position),
                event_name: Cow::Owned(event_name),
                schema: SchemaId::new(schema),
                payload: Bytes::from(payload),
                occurred_at: Timestamp::from_millis(occurred_at),
                recorded_at: Timestamp::from_millis(recorded_at),
                metadata: Metadata {
                    tenant: tenant.map(Uuid::from_u128),
                    actor: is_user.map(|user| Arc::from(if user { "user:1" } else { "service:x" })),
                    command_id: Uuid::from_u128(event_id ^ 1),
                    correlation_id: Uuid::from_u128(aggregate_id ^ 1),
                    causation_id: tenant.map(|id| Uuid::from_u128(id ^ 1)),
                    trace_context: is_user
                        .map(|_| Arc::from("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")),
                },
            }
        })
    }

    fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
        message.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    proptest! {
        #[test]
        fn message_reads_back_as_the_published_event(event in envelopes(), id in any::<u32>()) {
            let frames = [Frame::Fingerprint(event.schema), Frame::Registered(id)];
            for frame in frames {
                let message = Message::framed(&event, "catacloud", frame);
                let received = Message::receive(|name| header(&message, name), &message.body).unwrap();
                prop_assert_eq!(received.frame, frame);
                prop_assert_eq!(&received.with_schema(event.schema), &event);
                prop_assert_eq!(&Message::read(|name| header(&message, name), &message.body), &Ok(event.clone()));
            }
        }

        #[test]
        fn frame_splits_exactly_the_framed_bodies(bytes in prop::collection::vec(any::<u8>(), 0..16)) {
            let framed = matches!(bytes.as_slice(), [0xC3, 0x01, rest @ ..] if rest.len() >= 8)
                || matches!(bytes.as_slice(), [0, rest @ ..] if rest.len() >= 4);
            prop_assert_eq!(Frame::split(&Bytes::from(bytes)).is_some(), framed);
        }
    }

    #[test]
    fn frames_have_their_specified_bytes() {
        let framed = |frame: Frame| {
            let mut body = BytesMut::new();
            frame.put(&mut body);
            body.put_u8(0x55);
            (body.to_vec(), Frame::split(&body.freeze()).unwrap())
        };
        let payload = Bytes::from_static(&[0x55]);
        // C3 01, then the fingerprint in little-endian order.
        let single = Frame::Fingerprint(SchemaId::new(0x0123_4567_89AB_CDEF));
        let bytes = vec![0xC3, 0x01, 0xEF, 0xCD, 0xAB, 0x89, 0x67, 0x45, 0x23, 0x01, 0x55];
        assert_eq!(framed(single), (bytes, (single, payload.clone())));
        let registered = Frame::Registered(0x0102_0304);
        assert_eq!(framed(registered), (vec![0x00, 0x01, 0x02, 0x03, 0x04, 0x55], (registered, payload)));
    }

    #[test]
    fn foreign_message_is_an_error() {
        let foreign = Bytes::from_static(b"hello, world");
        let header = |name: &str| (name == "ce_type").then_some("catacloud.file.FileDeleted");
        assert_eq!(Message::read(header, &foreign), Err(MessageError::UnknownFraming));
        assert_eq!(Message::read(|_| None, &foreign), Err(MessageError::MissingHeader { name: "ce_type" }));
    }
}
