//! The conformance suite of event stores.

use futures::TryStreamExt;
use uuid::Uuid;

use super::{
    appends::{self, AGGREGATE, append, committed, stream},
    streams::streams_respect_their_bounds,
};
use crate::{
    aggregate::context::CommandContext,
    event::{envelope::Envelope, version::Position},
    store::{Append, AppendOutcome, EventStore, StoreError},
};

/// Checks the invariants of an event store on `store`, which must be empty.
///
/// # Errors
/// [`StoreError`] when the store fails.
///
/// # Panics
/// When an invariant is violated.
#[allow(clippy::panic, reason = "a test kit fails tests by panicking")]
pub async fn store_conformance<S: EventStore>(store: &S) -> Result<(), StoreError> {
    versions_are_assigned_and_checked(store).await?;
    append_follows_the_event_it_was_decided_on(store).await?;
    repeated_command_appends_nothing(store).await?;
    one_of_many_concurrent_appends_commits(store).await?;
    streams_respect_their_bounds(store).await
}

async fn versions_are_assigned_and_checked<S: EventStore>(store: &S) -> Result<(), StoreError> {
    let (id, context) = (Uuid::now_v7(), CommandContext::new().for_tenant(Uuid::from_u128(9)).by("user:1"));
    assert_eq!(committed(&store.append(append(id, 0, &[1, 2], &context)).await?), 2, "a new stream");
    assert_eq!(committed(&store.append(append(id, 2, &[3], &context)).await?), 1, "an existing stream");
    for wrong in [0, 2, 4, 100] {
        let appended = store.append(append(id, wrong, &[9], &context)).await?;
        assert!(matches!(appended, AppendOutcome::Conflict { actual } if actual.get() == 3), "{wrong}: {appended:?}");
    }
    let events = stream(store, id, 0).await?;
    let seen: Vec<_> = events.iter().map(|event| (event.version.get(), event.payload[0])).collect();
    assert_eq!(seen, [(1, 1), (2, 2), (3, 3)], "the whole stream in order");
    assert!(events.iter().all(|event| event.metadata.tenant == Some(Uuid::from_u128(9))), "metadata is stored");
    assert!(events.iter().all(|event| event.occurred_at == context.occurred_at), "instants are stored");
    assert_eq!(stream(store, id, 2).await?, events[2..], "only newer events");
    let all: Vec<Envelope> = store.stream_all(&[], Position::START).try_collect().await?;
    assert_eq!(all, events, "the whole store");
    let newer: Vec<Envelope> = store.stream_all(&[AGGREGATE], events[1].position).try_collect().await?;
    assert_eq!(newer, events[2..], "events after a position");
    let others: Vec<Envelope> = store.stream_all(&["another"], Position::START).try_collect().await?;
    assert_eq!(others, [], "another category");
    Ok(())
}

async fn append_follows_the_event_it_was_decided_on<S: EventStore>(store: &S) -> Result<(), StoreError> {
    let (id, context) = (Uuid::now_v7(), CommandContext::new());
    let original = append(id, 0, &[1], &context);
    let last = original.events.last().map(|event| event.event_id);
    // A competing append commits first: the version that the second append expects exists, but is another event.
    let competing = append(id, 0, &[2], &context);
    let competing_last = competing.events.last().map(|event| event.event_id);
    store.append(competing).await?;
    for numbers in [&[3][..], &[3, 4]] {
        let second = Append { previous: last, ..append(id, 1, numbers, &context) };
        let (first, second) = futures::future::try_join(store.append(original.clone()), store.append(second)).await?;
        for appended in [first, second] {
            assert!(matches!(appended, AppendOutcome::Conflict { actual } if actual.get() == 1), "{appended:?}");
        }
    }
    let following = Append { previous: competing_last, ..append(id, 1, &[5], &context) };
    let last = following.events.last().map(|event| event.event_id);
    let next = Append { previous: last, ..append(id, 2, &[6, 7], &context) };
    let (first, second) = futures::future::try_join(store.append(following), store.append(next)).await?;
    assert_eq!((committed(&first), committed(&second)), (1, 2), "one after the other");
    let events = stream(store, id, 0).await?;
    assert_eq!(events.iter().map(|event| event.payload[0]).collect::<Vec<_>>(), [2, 5, 6, 7]);
    Ok(())
}

async fn repeated_command_appends_nothing<S: EventStore>(store: &S) -> Result<(), StoreError> {
    let (id, other) = (Uuid::now_v7(), Uuid::now_v7());
    let context = CommandContext::new().repeatable(Uuid::now_v7(), *b"body");
    assert_eq!(committed(&store.append(append(id, 0, &[1], &context)).await?), 1, "first execution");
    for (target, expected) in [(id, 0), (id, 1), (other, 0)] {
        let again = store.append(append(target, expected, &[1], &context)).await?;
        assert!(
            matches!(&again, AppendOutcome::Repeated(record) if record.aggregate_id == id && record.version.get() == 1),
            "repeated execution: {again:?}"
        );
    }
    let reused = context.clone().repeatable(context.command_id, *b"another body");
    let appended = store.append(append(id, 1, &[1], &reused)).await?;
    assert!(matches!(appended, AppendOutcome::Reused), "reused id: {appended:?}");
    assert_eq!(stream(store, id, 0).await?.len(), 1, "appended once");
    // The result of a no-op is stored as well.
    let idle = CommandContext::new().repeatable(Uuid::now_v7(), *b"idle");
    store.append(append(id, 1, &[], &idle)).await?;
    store.append(append(id, 1, &[2], &CommandContext::new())).await?;
    let again = store.append(append(id, 2, &[3], &idle)).await?;
    assert!(
        matches!(&again, AppendOutcome::Repeated(record) if record.version.get() == 1),
        "repeated no-op: {again:?}"
    );
    Ok(())
}

async fn one_of_many_concurrent_appends_commits<S: EventStore>(store: &S) -> Result<(), StoreError> {
    let (id, context) = (Uuid::now_v7(), CommandContext::new());
    let before: Vec<Envelope> = store.stream_all(&[], Position::START).try_collect().await?;
    let start = before.last().map_or(Position::START, |event| event.position);
    for round in 0..10 {
        let writers = (0..16).map(|writer| store.append(append(id, round, &[writer], &context)));
        let results = futures::future::try_join_all(writers).await?;
        let committed: usize = results.iter().map(appends::committed).sum();
        assert_eq!(committed, 1, "one commit per round");
    }
    let events: Vec<Envelope> = store.stream_all(&[], start).try_collect().await?;
    let versions: Vec<_> = events.iter().map(|event| event.version.get()).collect();
    assert_eq!(versions, (1..=10).collect::<Vec<_>>(), "gapless versions in position order");
    Ok(())
}
