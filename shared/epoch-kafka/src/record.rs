//! Decoding of Kafka records into events.

use std::panic::{self, AssertUnwindSafe};

use bytes::Bytes;
use epoch::message::{Message as EpochMessage, MessageError, ReceivedEvent};
use rdkafka::{
    Message,
    message::{BorrowedMessage, Headers},
};

/// Returns the event in a record, or the reason why the record is not an event.
pub(crate) fn read_event(record: &BorrowedMessage<'_>, with_registry: bool) -> Result<ReceivedEvent, String> {
    // rdkafka panics at a header name that is not UTF-8. A stray record must not end the consumer at each of its restarts.
    let event = panic::catch_unwind(AssertUnwindSafe(|| decode(record, with_registry)))
        .map_err(|_| "header name is not UTF-8".to_owned())?
        .map_err(|error| error.to_string())?;
    if record.topic().rsplit('.').nth(1) == Some(event.aggregate()) {
        Ok(event)
    } else {
        Err(format!("event belongs to aggregate {}", event.aggregate()))
    }
}

fn decode(record: &BorrowedMessage<'_>, with_registry: bool) -> Result<ReceivedEvent, MessageError> {
    let headers = record.headers().map(|headers| headers.iter().collect::<Vec<_>>()).unwrap_or_default();
    let header = |name: &str| {
        let header = headers.iter().find(|header| header.key == name)?;
        header.value.and_then(|value| std::str::from_utf8(value).ok())
    };
    let body = Bytes::copy_from_slice(record.payload().unwrap_or_default());
    // Without a registry, the schema comes from the producer's `ce_dataschema` header.
    if with_registry {
        EpochMessage::receive(header, &body)
    } else {
        EpochMessage::read(header, &body).map(ReceivedEvent::from)
    }
}
