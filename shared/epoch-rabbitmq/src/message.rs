//! Conversion between events and AMQP messages.
//!
//! AMQP headers are typed, and a stream may return a header with another type than the published one. Headers are therefore written as
//! text and read from any text type; headers of other types are ignored.

use bytes::Bytes;
use epoch::{
    envelope::Envelope,
    message::{Frame, Message, MessageError, ReceivedEvent},
};
use lapin::{
    BasicProperties,
    message::Delivery,
    types::{AMQPValue, FieldTable},
};

use crate::{connection::short_string, error::Error};

/// AMQP's delivery mode for messages that survive a restart of the broker.
const PERSISTENT: u8 = 2;
const CONTENT_TYPE: &str = "content-type";
/// The name of a message's offset in its headers, and of the start offset in a consumer's arguments.
pub(crate) const OFFSET: &str = "x-stream-offset";

/// Returns the AMQP properties and the body of an event.
pub(crate) fn write(event: &Envelope, namespace: &str, frame: Frame) -> Result<(BasicProperties, Bytes), Error> {
    let message = Message::framed(event, namespace, frame);
    let mut properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    let mut headers = FieldTable::default();
    for (name, value) in &message.headers {
        if *name == CONTENT_TYPE {
            properties = properties.with_content_type(short_string(value)?);
        } else {
            headers.insert(short_string(name)?, AMQPValue::LongString(value.as_str().into()));
        }
    }
    let properties = properties.with_message_id(short_string(&event.event_id.to_string())?).with_headers(headers);
    Ok((properties, message.body))
}

fn text(value: &AMQPValue) -> Option<&str> {
    match value {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        AMQPValue::ShortString(text) => Some(text.as_str()),
        _ => None,
    }
}

fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
    properties.headers().as_ref()?.inner().get(name)
}

/// Decodes the event in a message.
pub(crate) fn read(delivery: Delivery, with_registry: bool) -> Result<ReceivedEvent, MessageError> {
    let body = Bytes::from(delivery.data);
    let header = |name: &str| header(&delivery.properties, name).and_then(text);
    // Without a registry, the schema comes from the producer's `ce_dataschema` header.
    if with_registry { Message::receive(header, &body) } else { Message::read(header, &body).map(ReceivedEvent::from) }
}

/// Returns the message's offset in its stream.
pub(crate) fn offset(delivery: &Delivery) -> Option<u64> {
    match header(&delivery.properties, OFFSET)? {
        AMQPValue::LongLongInt(offset) => u64::try_from(*offset).ok(),
        AMQPValue::LongInt(offset) => u64::try_from(*offset).ok(),
        AMQPValue::LongUInt(offset) => Some(u64::from(*offset)),
        _ => None,
    }
}
