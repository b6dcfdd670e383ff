//! Appends and reads of the conformance suites.

use futures::TryStreamExt;
use uuid::Uuid;

use crate::{
    aggregate::context::CommandContext,
    event::{EncodedEvent, SchemaId, envelope::Envelope, version::Version},
    store::{Append, AppendOutcome, EventStore, NewEvent, StoreError},
};

/// The aggregate of the suite's events.
pub(super) const AGGREGATE: &str = "conformance";

pub(super) fn event(number: u8) -> NewEvent {
    NewEvent {
        event_id: Uuid::now_v7(),
        name: "Happened",
        encoded: EncodedEvent { schema: SchemaId::new(7), payload: vec![number].into() },
    }
}

pub(super) fn append(id: Uuid, expected: u64, numbers: &[u8], context: &CommandContext) -> Append {
    Append {
        aggregate: AGGREGATE,
        aggregate_id: id,
        expected: Version::new(expected),
        previous: None,
        events: numbers.iter().copied().map(event).collect(),
        context: context.clone(),
    }
}

pub(super) async fn stream<S: EventStore>(store: &S, id: Uuid, after: u64) -> Result<Vec<Envelope>, StoreError> {
    store.stream(AGGREGATE, id, Version::new(after)).try_collect().await
}

/// Returns the number of committed events; 0 when the append was not committed.
pub(super) fn committed(outcome: &AppendOutcome) -> usize {
    if let AppendOutcome::Committed { events, .. } = outcome { events.len() } else { 0 }
}
