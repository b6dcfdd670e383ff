//! The event types of a service, for operations that print events.

use std::fmt;

use epoch::{DomainEvent, Envelope, event::CodecError};
use serde::Serialize;
use serde_json::Value;

/// The events of one aggregate, with their decoder.
#[derive(Clone, Copy)]
pub struct EventType {
    aggregate: &'static str,
    decode: fn(&Envelope) -> Result<Vec<DecodedEvent>, CodecError>,
}

/// A stored event in its current form, after upcasting.
pub(crate) struct DecodedEvent {
    pub(crate) name: &'static str,
    pub(crate) payload: Value,
}

impl EventType {
    /// Returns the type for events `E` of `aggregate`.
    #[must_use]
    pub fn of<E: DomainEvent + Serialize>(aggregate: &'static str) -> Self {
        Self { aggregate, decode: decode::<E> }
    }

    pub(crate) fn aggregate(&self) -> &'static str {
        self.aggregate
    }

    /// Decodes a stored event. A stored event may correspond to several current events, or to none.
    pub(crate) fn decode(&self, envelope: &Envelope) -> Result<Vec<DecodedEvent>, CodecError> {
        (self.decode)(envelope)
    }
}

impl fmt::Debug for EventType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EventType").field("aggregate", &self.aggregate).finish_non_exhaustive()
    }
}

fn decode<E: DomainEvent + Serialize>(envelope: &Envelope) -> Result<Vec<DecodedEvent>, CodecError> {
    let invalid = |error: serde_json::Error| CodecError::Decode {
        name: envelope.event_name.to_string(),
        detail: error.to_string(),
    };
    let mut decoded = Vec::new();
    for event in envelope.decode_all::<E>()? {
        decoded.push(DecodedEvent { name: event.name(), payload: serde_json::to_value(&event).map_err(invalid)? });
    }
    Ok(decoded)
}
