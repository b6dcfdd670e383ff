//! An event as an AMQP message.
//!
//! The problem: AMQP has typed headers, and a stream gives them back in types of its own choice.
//! The invariant: what goes in as text comes out as text, and whatever else is found is passed over, never a panic.

use bytes::Bytes;
use epoch::{
    envelope::Envelope,
    message::{Frame, Message, MessageError, Received},
};
use lapin::{
    BasicProperties,
    message::Delivery,
    types::{AMQPValue, FieldTable},
};

use crate::{connection::short, error::Error};

/// Survives a restart of the broker.
const PERSISTENT: u8 = 2;
const CONTENT_TYPE: &str = "content-type";
/// Where a message of a stream stands, in its headers and as an argument of a consumer.
pub(crate) const OFFSET: &str = "x-stream-offset";

/// The properties and the body for an event.
pub(crate) fn write(event: &Envelope, namespace: &str, frame: Frame) -> Result<(BasicProperties, Bytes), Error> {
    let message = Message::framed(event, namespace, frame);
    let mut properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    let mut headers = FieldTable::default();
    for (name, value) in &message.headers {
        if *name == CONTENT_TYPE {
            properties = properties.with_content_type(short(value)?);
        } else {
            headers.insert(short(name)?, AMQPValue::LongString(value.as_str().into()));
        }
    }
    let properties = properties.with_message_id(short(&event.event_id.to_string())?).with_headers(headers);
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

/// The event in a message; takes its body.
pub(crate) fn read(delivery: &mut Delivery, registry: bool) -> Result<Received, MessageError> {
    let body = Bytes::from(std::mem::take(&mut delivery.data));
    let header = |name: &str| header(&delivery.properties, name).and_then(text);
    // Without a registry to ask, the producer's own word about the schema counts.
    if registry { Message::receive(header, &body) } else { Message::read(header, &body).map(Received::from) }
}

/// Where the message stands in its stream.
pub(crate) fn offset(delivery: &Delivery) -> Option<u64> {
    match header(&delivery.properties, OFFSET)? {
        AMQPValue::LongLongInt(offset) => u64::try_from(*offset).ok(),
        AMQPValue::LongInt(offset) => u64::try_from(*offset).ok(),
        AMQPValue::LongUInt(offset) => Some(u64::from(*offset)),
        _ => None,
    }
}
