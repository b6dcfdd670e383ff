//! Prints the events of an aggregate.
//!
//! Payloads are Avro, so they are decoded by the service's own event types. A stored event that upcasts to several current
//! events is printed as each of them, and one that upcasts to none as dropped: no version is left out.

use epoch::{Envelope, Version, store::Streamer};
use epoch_postgres::PgStore;
use futures::TryStreamExt;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{error::OperationError, output::Output};
use crate::{event_type::DecodedEvent, service::Service};

pub(super) async fn print<S: Service>(
    store: &PgStore,
    aggregate: &str,
    id: Uuid,
    from: u64,
    json: bool,
) -> Result<(), OperationError> {
    let types = S::events();
    let Some(event_type) = types.iter().find(|event_type| event_type.aggregate() == aggregate) else {
        let known: Vec<_> = types.iter().map(|event_type| event_type.aggregate()).collect();
        return Err(OperationError::NoAggregate { name: aggregate.to_owned(), known: known.join(", ") });
    };
    let output = Output::new(json);
    let mut events = store.stream(event_type.aggregate(), id, Version::new(from.saturating_sub(1)));
    let mut is_empty = true;
    while let Some(event) = events.try_next().await? {
        is_empty = false;
        let decoded = event_type.decode(&event)?;
        if decoded.is_empty() {
            let text = format!("{}  {}  {}  dropped", event.version, event.occurred_at, event.event_name);
            output.line(&text, &object(&event, None))?;
        }
        for DecodedEvent { name, payload } in decoded {
            let text = format!("{}  {}  {name}  {payload}", event.version, event.occurred_at);
            output.line(&text, &object(&event, Some(DecodedEvent { name, payload })))?;
        }
    }
    if is_empty {
        return Err(OperationError::NotFound { detail: format!("{aggregate} {id} has no events from version {from}") });
    }
    Ok(())
}

/// Returns the JSON of an event. `event` and `payload` are null for a dropped event.
fn object(event: &Envelope, decoded: Option<DecodedEvent>) -> Value {
    let metadata = &event.metadata;
    let (name, payload) = decoded.map(|decoded| (decoded.name, decoded.payload)).unzip();
    json!({
        "position": event.position.get(), "aggregate": event.aggregate, "aggregate_id": event.aggregate_id,
        "version": event.version.get(), "event_id": event.event_id, "event": name, "stored_as": event.event_name,
        "schema": event.schema.to_string(), "occurred_at": event.occurred_at.to_string(),
        "recorded_at": event.recorded_at.to_string(), "tenant": metadata.tenant, "actor": metadata.actor.as_deref(),
        "command_id": metadata.command_id, "correlation_id": metadata.correlation_id,
        "causation_id": metadata.causation_id, "payload": payload,
    })
}
