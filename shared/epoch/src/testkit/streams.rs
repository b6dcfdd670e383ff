//! The part of the event store suite that covers streams.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt};
use uuid::Uuid;

use super::appends::{AGGREGATE, append, committed, event};
use crate::{
    aggregate::context::CommandContext,
    event::{
        SchemaId,
        envelope::Envelope,
        version::{Position, Version},
    },
    store::{
        Append, EventStore, StoreError,
        bounds::{Positions, Versions},
        fold::StoredEvent,
    },
};

const OTHER: &str = "conformance_other";

/// An owned copy of the fields that a visit passes.
#[derive(Debug, PartialEq)]
struct VisitedEvent {
    version: Version,
    event_name: String,
    schema: SchemaId,
    payload: Vec<u8>,
}

impl From<StoredEvent<'_>> for VisitedEvent {
    fn from(event: StoredEvent<'_>) -> Self {
        let StoredEvent { version, event_name, schema, payload } = event;
        Self { version, event_name: event_name.to_owned(), schema, payload: payload.to_vec() }
    }
}

impl From<&Envelope> for VisitedEvent {
    fn from(event: &Envelope) -> Self {
        Self {
            version: event.version,
            event_name: event.event_name.to_string(),
            schema: event.schema,
            payload: event.payload.to_vec(),
        }
    }
}

async fn read_stream<S: EventStore>(store: &S, id: Uuid, bounds: Versions) -> Result<Vec<Envelope>, StoreError> {
    store.read(AGGREGATE, id, bounds).try_collect().await
}

async fn read_all<S: EventStore>(
    store: &S,
    aggregates: &[&'static str],
    bounds: Positions,
) -> Result<Vec<Envelope>, StoreError> {
    store.read_all(aggregates, bounds).try_collect().await
}

/// Reads by aggregate, by category and over the whole store, with all kinds of bounds, over more events than a store
/// reads at once.
#[allow(clippy::panic, clippy::indexing_slicing, reason = "a test kit fails tests by panicking")]
pub(super) async fn streams_respect_their_bounds<S: EventStore>(store: &S) -> Result<(), StoreError> {
    const EVENTS: usize = 2_600;
    let (id, other, context) = (Uuid::now_v7(), Uuid::now_v7(), CommandContext::new());
    let before = read_all(store, &[], Positions::all()).await?.last().map_or(Position::START, |event| event.position);
    for start in (0..EVENTS).step_by(100) {
        let numbers: Vec<u8> = (0..100).collect();
        assert_eq!(committed(&store.append(append(id, start as u64, &numbers, &context)).await?), 100);
        let other_append = Append {
            aggregate: OTHER,
            aggregate_id: other,
            expected: Version::ZERO.after(start / 100),
            previous: None,
            events: vec![event(1)],
            context: context.clone(),
        };
        assert_eq!(committed(&store.append(other_append).await?), 1);
    }
    let stream = read_stream(store, id, Versions::all()).await?;
    let all = read_all(store, &[], Positions::since(before)).await?;
    let category = read_all(store, &[AGGREGATE], Positions::since(before)).await?;
    assert_eq!(stream.len(), EVENTS, "the whole stream");
    assert!(stream.iter().zip(1..).all(|(event, version)| event.version == Version::new(version)), "in version order");
    assert!(all.windows(2).all(|pair| pair[0].position < pair[1].position), "in position order");
    assert_eq!(all.len(), EVENTS + EVENTS / 100, "the whole store");
    assert_eq!(category, stream, "a category");
    assert_eq!(read_all(store, &[OTHER, AGGREGATE], Positions::since(before)).await?, all, "two categories");

    for (after, last, limit) in
        [(0, EVENTS, None), (0, 1, None), (7, 9, None), (EVENTS, EVENTS, None), (5, 3, None), (0, EVENTS, Some(1_700))]
            .into_iter()
            .chain([(10, 2_000, Some(5)), (10, 12, Some(0)), (2_599, 9_999, Some(50)), (3_000, 4_000, None)])
    {
        let slice = &stream[after.min(EVENTS)..last.clamp(after.min(EVENTS), EVENTS)];
        let expected: Vec<_> = slice.iter().take(limit.unwrap_or(EVENTS)).cloned().collect();
        let case = format!("after {after}, up to {last}, limit {limit:?}");
        let mut bounds = Versions::since(Version::ZERO.after(after)).up_to(Version::ZERO.after(last));
        bounds.limit = limit.map(|limit| limit as u64);
        assert_eq!(read_stream(store, id, bounds).await?, expected, "a stream {case}");
        let mut visited = Vec::new();
        store
            .visit(AGGREGATE, id, bounds, &mut |event| {
                visited.push(VisitedEvent::from(event));
                Ok(())
            })
            .await?;
        assert_eq!(visited, expected.iter().map(VisitedEvent::from).collect::<Vec<_>>(), "a visit {case}");

        let position = |version: usize| match version {
            0 => before,
            _ => stream.get(version - 1).map_or(Position::new(i64::MAX.unsigned_abs()), |event| event.position),
        };
        let mut bounds = Positions::since(position(after)).up_to(position(last));
        bounds.limit = limit.map(|limit| limit as u64);
        assert_eq!(read_all(store, &[AGGREGATE], bounds).await?, expected, "a category {case}");
        let inside = all.iter().filter(|event| bounds.contains(event.position)).take(limit.unwrap_or(usize::MAX));
        assert_eq!(read_all(store, &[], bounds).await?, inside.cloned().collect::<Vec<_>>(), "everything {case}");
    }
    let refused = StoreError::Refused { detail: "enough".to_owned() };
    let mut seen = 0;
    let mut refusing = |_: StoredEvent<'_>| {
        seen += 1;
        if seen < 3 { Ok(()) } else { Err(refused.clone()) }
    };
    let visited = store.visit(AGGREGATE, id, Versions::all(), &mut refusing).await;
    assert_eq!(visited.map_err(|error| error.to_string()), Err(refused.to_string()), "an error ends a visit");
    assert_eq!(seen, 3, "an error ends a visit at once");
    read_all_ends_at_the_position_of_its_call(store, before, all.len()).await
}

/// A reader that appends while reading does not block and does not read its own appends.
async fn read_all_ends_at_the_position_of_its_call<S: EventStore>(
    store: &S,
    before: Position,
    length: usize,
) -> Result<(), StoreError> {
    let (id, context) = (Uuid::now_v7(), CommandContext::new());
    let mut events = store.read_all(&[], Positions::since(before));
    let mut read = HashSet::new();
    let mut version = 0;
    while let Some(event) = events.next().await {
        read.insert(event?.event_id);
        if read.len().is_multiple_of(100) {
            assert_eq!(committed(&store.append(append(id, version, &[1], &context)).await?), 1, "while reading");
            version += 1;
        }
    }
    assert_eq!(read.len(), length, "up to the end at the time of the call");
    Ok(())
}
