//! An aggregate's events as people can read them.
//!
//! The problem: payloads are Avro, and only the service has the schemas. The invariant: what is shown is what the service's own
//! decoders make of the bytes; what they can't read is an error, not a guess. A stored event that is several of today's is shown
//! as each of them, and one that is none as dropped: no version is left out.

use std::fmt;

use epoch::{DomainEvent, Envelope, Version, event::CodecError, store::Streamer};
use epoch_postgres::PgStore;
use futures::TryStreamExt;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{OperateError, Output};
use crate::service::Service;

/// The events of one kind of aggregate.
#[derive(Clone, Copy)]
pub struct EventType {
    aggregate: &'static str,
    decode: fn(&Envelope) -> Result<Vec<Today>, CodecError>,
}

/// A name and a payload, as they are today.
type Today = (&'static str, Value);

impl EventType {
    /// Events `E` of `aggregate`.
    #[must_use]
    pub fn of<E: DomainEvent + Serialize>(aggregate: &'static str) -> Self {
        Self { aggregate, decode: decode::<E> }
    }

    /// The aggregate.
    pub(crate) fn aggregate(&self) -> &'static str {
        self.aggregate
    }
}

impl fmt::Debug for EventType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EventType").field("aggregate", &self.aggregate).finish_non_exhaustive()
    }
}

fn decode<E: DomainEvent + Serialize>(envelope: &Envelope) -> Result<Vec<Today>, CodecError> {
    let invalid = |error: serde_json::Error| CodecError::Decode {
        name: envelope.event_name.to_string(),
        detail: error.to_string(),
    };
    let mut today = Vec::new();
    for event in envelope.decode_all::<E>()? {
        today.push((event.name(), serde_json::to_value(&event).map_err(invalid)?));
    }
    Ok(today)
}

pub(super) async fn show<S: Service>(
    store: &PgStore,
    (aggregate, id): (&str, Uuid),
    from: u64,
    json: bool,
) -> Result<(), OperateError> {
    let types = S::events();
    let Some(kind) = types.iter().find(|kind| kind.aggregate == aggregate) else {
        let known: Vec<_> = types.iter().map(|kind| kind.aggregate).collect();
        return Err(OperateError::NoAggregate { name: aggregate.to_owned(), known: known.join(", ") });
    };
    let output = Output::new(json);
    let mut events = store.stream(kind.aggregate, id, Version::new(from.saturating_sub(1)));
    let mut shown = false;
    while let Some(event) = events.try_next().await? {
        shown = true;
        let today = (kind.decode)(&event)?;
        if today.is_empty() {
            let text = format!("{}  {}  {}  dropped", event.version, event.occurred_at, event.event_name);
            output.line(&text, &object(&event, None))?;
        }
        for (name, payload) in today {
            let text = format!("{}  {}  {name}  {payload}", event.version, event.occurred_at);
            output.line(&text, &object(&event, Some((name, payload))))?;
        }
    }
    if shown {
        return Ok(());
    }
    Err(OperateError::Nothing { what: format!("{aggregate} {id} has no events from version {from} on") })
}

/// `event` and `payload` are null for a stored event that is dropped today.
fn object(event: &Envelope, today: Option<Today>) -> Value {
    let metadata = &event.metadata;
    let (name, payload) = today.unzip();
    json!({
        "position": event.position.get(), "aggregate": event.aggregate, "aggregate_id": event.aggregate_id,
        "version": event.version.get(), "event_id": event.event_id, "event": name, "stored_as": event.event_name,
        "schema": event.schema.to_string(), "occurred_at": event.occurred_at.to_string(),
        "recorded_at": event.recorded_at.to_string(), "tenant": metadata.tenant, "actor": metadata.actor.as_deref(),
        "command_id": metadata.command_id, "correlation_id": metadata.correlation_id,
        "causation_id": metadata.causation_id, "payload": payload,
    })
}
