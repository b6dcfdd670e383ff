//! Tests that read like the specification, and the suite that every event store passes.
//!
//! ```
//! # use epoch::{Aggregate, testkit::given};
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
//! # struct Opened {}
//! # #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
//! # struct Closed {}
//! # const OPENED: &str = r#"{"type": "record", "name": "Opened", "fields": []}"#;
//! # const CLOSED: &str = r#"{"type": "record", "name": "Closed", "fields": []}"#;
//! # epoch::events! { enum DoorEvent { Opened = [OPENED], Closed = [CLOSED] } }
//! # #[derive(Debug, Clone, Default, Serialize, Deserialize)]
//! # struct Door { open: bool }
//! # #[derive(Debug, PartialEq, thiserror::Error)]
//! # #[error("it is closed")]
//! # struct IsClosed;
//! # enum Command { Open, Close }
//! # impl Aggregate for Door {
//! #     const NAME: &'static str = "door";
//! #     type Command = Command;
//! #     type Event = DoorEvent;
//! #     type Error = IsClosed;
//! #     fn decide(&self, command: &Command) -> Result<Vec<DoorEvent>, IsClosed> {
//! #         match command {
//! #             Command::Open if self.open => Ok(vec![]),
//! #             Command::Open => Ok(vec![Opened {}.into()]),
//! #             Command::Close if self.open => Ok(vec![Closed {}.into()]),
//! #             Command::Close => Err(IsClosed),
//! #         }
//! #     }
//! #     fn evolve(&mut self, event: &DoorEvent) { self.open = matches!(event, DoorEvent::Opened(_)); }
//! # }
//! given::<Door>([])
//!     .when(&Command::Open).then([Opened {}.into()])
//!     .when(&Command::Open).then_nothing()
//!     .when(&Command::Close).then([Closed {}.into()])
//!     .when(&Command::Close).then_rejected(|error| *error == IsClosed);
//! ```

pub mod bus;
pub mod metrics;
mod ports;
mod saga;

pub use ports::free_ports;
pub use saga::{Did, GivenSaga, Reacted, given_saga};

use futures::TryStreamExt;
use uuid::Uuid;

use crate::{
    aggregate::Aggregate,
    context::CommandContext,
    envelope::Envelope,
    event::{Encoded, SchemaId},
    store::{Append, Appended, EventStore, NewEvent, StoreError},
    version::{Position, Version},
};

mod states;
mod streams;

pub use states::{
    Empty, Tallied, Tally, TallyCommand, TallyEvent, ThrownAway, snapshot_store_conformance, state_store_conformance,
};

/// An aggregate with a past.
#[derive(Debug, Clone)]
pub struct Given<A> {
    state: A,
}

/// What the aggregate decided.
#[derive(Debug)]
pub struct Decided<A: Aggregate> {
    state: A,
    result: Result<Vec<A::Event>, A::Error>,
}

/// The aggregate after these events.
pub fn given<A: Aggregate>(events: impl IntoIterator<Item = A::Event>) -> Given<A> {
    let mut state = A::default();
    for event in events {
        state.evolve(&event);
    }
    Given { state }
}

impl<A: Aggregate> Given<A> {
    /// Decides a command.
    #[must_use]
    pub fn when(self, command: &A::Command) -> Decided<A> {
        let result = self.state.decide(command);
        Decided { state: self.state, result }
    }

    /// The state, to look at.
    pub fn state(&self) -> &A {
        &self.state
    }
}

#[allow(clippy::panic, reason = "a test kit fails tests by panicking")]
impl<A: Aggregate> Decided<A> {
    /// Exactly these events; gives the aggregate after them, to go on with.
    ///
    /// # Panics
    /// When it decided otherwise.
    #[track_caller]
    pub fn then(self, expected: impl IntoIterator<Item = A::Event>) -> Given<A> {
        let expected: Vec<_> = expected.into_iter().collect();
        match self.result {
            Ok(events) => assert_eq!(events, expected, "decided events"),
            Err(error) => panic!("refused: {error}; expected {expected:?}"),
        }
        let mut state = self.state;
        for event in &expected {
            state.evolve(event);
        }
        Given { state }
    }

    /// Nothing to do.
    ///
    /// # Panics
    /// When it decided otherwise.
    #[track_caller]
    pub fn then_nothing(self) -> Given<A> {
        self.then([])
    }

    /// A refusal that `expected` accepts.
    ///
    /// # Panics
    /// When it decided otherwise.
    #[track_caller]
    pub fn then_rejected(self, expected: impl FnOnce(&A::Error) -> bool) {
        match self.result {
            Ok(events) => panic!("decided {events:?}; expected a refusal"),
            Err(error) => assert!(expected(&error), "refused for another reason: {error:?}"),
        }
    }
}

const AGGREGATE: &str = "conformance";

fn event(number: u8) -> NewEvent {
    NewEvent {
        event_id: Uuid::now_v7(),
        name: "Happened",
        encoded: Encoded { schema: SchemaId::new(7), payload: vec![number].into() },
    }
}

fn append(id: Uuid, expected: u64, numbers: &[u8], context: &CommandContext) -> Append {
    Append {
        aggregate: AGGREGATE,
        aggregate_id: id,
        expected: Version::new(expected),
        previous: None,
        events: numbers.iter().copied().map(event).collect(),
        context: context.clone(),
    }
}

async fn stream<S: EventStore>(store: &S, id: Uuid, after: u64) -> Result<Vec<Envelope>, StoreError> {
    store.stream(AGGREGATE, id, Version::new(after)).try_collect().await
}

/// What every event store promises, tried on `store`, which must be empty.
///
/// # Errors
/// When the store gives no answer.
///
/// # Panics
/// When it breaks a promise.
#[allow(clippy::panic, reason = "a test kit fails tests by panicking")]
pub async fn store_conformance<S: EventStore>(store: &S) -> Result<(), StoreError> {
    versions_are_counted_and_checked(store).await?;
    a_command_stands_on_the_event_it_was_decided_on(store).await?;
    a_repeated_command_appends_nothing(store).await?;
    only_one_of_many_writers_wins(store).await?;
    streams::streams_keep_to_their_bounds(store).await
}

fn committed(appended: &Appended) -> usize {
    if let Appended::Committed { events, .. } = appended { events.len() } else { 0 }
}

async fn versions_are_counted_and_checked<S: EventStore>(store: &S) -> Result<(), StoreError> {
    let (id, context) = (Uuid::now_v7(), CommandContext::new().for_tenant(Uuid::from_u128(9)).by("user:1"));
    assert_eq!(committed(&store.append(append(id, 0, &[1, 2], &context)).await?), 2, "a new stream");
    assert_eq!(committed(&store.append(append(id, 2, &[3], &context)).await?), 1, "an existing stream");
    for wrong in [0, 2, 4, 100] {
        let appended = store.append(append(id, wrong, &[9], &context)).await?;
        assert!(matches!(appended, Appended::Conflict { actual } if actual.get() == 3), "{wrong}: {appended:?}");
    }
    let events = stream(store, id, 0).await?;
    let seen: Vec<_> = events.iter().map(|event| (event.version.get(), event.payload[0])).collect();
    assert_eq!(seen, [(1, 1), (2, 2), (3, 3)], "the whole stream in order");
    assert!(events.iter().all(|event| event.metadata.tenant == Some(Uuid::from_u128(9))), "metadata is kept");
    assert!(events.iter().all(|event| event.occurred_at == context.occurred_at), "instants are kept");
    assert_eq!(stream(store, id, 2).await?, events[2..], "only what is newer");
    let all: Vec<Envelope> = store.stream_all(&[], Position::START).try_collect().await?;
    assert_eq!(all, events, "the whole store");
    let newer: Vec<Envelope> = store.stream_all(&[AGGREGATE], events[1].position).try_collect().await?;
    assert_eq!(newer, events[2..], "what comes after a position");
    let others: Vec<Envelope> = store.stream_all(&["another"], Position::START).try_collect().await?;
    assert_eq!(others, [], "another category");
    Ok(())
}

async fn a_command_stands_on_the_event_it_was_decided_on<S: EventStore>(store: &S) -> Result<(), StoreError> {
    let (id, context) = (Uuid::now_v7(), CommandContext::new());
    let mine = append(id, 0, &[1], &context);
    let last = mine.events.last().map(|event| event.event_id);
    // Somebody else was faster than the first; the version that the second names is there, but it is another's.
    let rival = append(id, 0, &[2], &context);
    let rivals_last = rival.events.last().map(|event| event.event_id);
    store.append(rival).await?;
    for numbers in [&[3][..], &[3, 4]] {
        let second = Append { previous: last, ..append(id, 1, numbers, &context) };
        let (first, second) = futures::future::try_join(store.append(mine.clone()), store.append(second)).await?;
        for appended in [first, second] {
            assert!(matches!(appended, Appended::Conflict { actual } if actual.get() == 1), "{appended:?}");
        }
    }
    let behind = Append { previous: rivals_last, ..append(id, 1, &[5], &context) };
    let last = behind.events.last().map(|event| event.event_id);
    let next = Append { previous: last, ..append(id, 2, &[6, 7], &context) };
    let (first, second) = futures::future::try_join(store.append(behind), store.append(next)).await?;
    assert_eq!((committed(&first), committed(&second)), (1, 2), "one behind the other");
    let events = stream(store, id, 0).await?;
    assert_eq!(events.iter().map(|event| event.payload[0]).collect::<Vec<_>>(), [2, 5, 6, 7]);
    Ok(())
}

async fn a_repeated_command_appends_nothing<S: EventStore>(store: &S) -> Result<(), StoreError> {
    let (id, other) = (Uuid::now_v7(), Uuid::now_v7());
    let context = CommandContext::new().repeatable(Uuid::now_v7(), *b"body");
    assert_eq!(committed(&store.append(append(id, 0, &[1], &context)).await?), 1, "the first time");
    for (target, expected) in [(id, 0), (id, 1), (other, 0)] {
        let again = store.append(append(target, expected, &[1], &context)).await?;
        assert!(
            matches!(&again, Appended::Repeated(record) if record.aggregate_id == id && record.version.get() == 1),
            "the second time: {again:?}"
        );
    }
    let reused = context.clone().repeatable(context.command_id, *b"another body");
    let appended = store.append(append(id, 1, &[1], &reused)).await?;
    assert!(matches!(appended, Appended::Reused), "another command: {appended:?}");
    assert_eq!(stream(store, id, 0).await?.len(), 1, "appended once");
    // A command that had nothing to do is kept as well.
    let idle = CommandContext::new().repeatable(Uuid::now_v7(), *b"idle");
    store.append(append(id, 1, &[], &idle)).await?;
    store.append(append(id, 1, &[2], &CommandContext::new())).await?;
    let again = store.append(append(id, 2, &[3], &idle)).await?;
    assert!(matches!(&again, Appended::Repeated(record) if record.version.get() == 1), "nothing to do: {again:?}");
    Ok(())
}

async fn only_one_of_many_writers_wins<S: EventStore>(store: &S) -> Result<(), StoreError> {
    let (id, context) = (Uuid::now_v7(), CommandContext::new());
    let before: Vec<Envelope> = store.stream_all(&[], Position::START).try_collect().await?;
    let start = before.last().map_or(Position::START, |event| event.position);
    for round in 0..10 {
        let writers = (0..16).map(|writer| store.append(append(id, round, &[writer], &context)));
        let results = futures::future::try_join_all(writers).await?;
        let winners: usize = results.iter().map(committed).sum();
        assert_eq!(winners, 1, "one winner a round");
    }
    let events: Vec<Envelope> = store.stream_all(&[], start).try_collect().await?;
    let versions: Vec<_> = events.iter().map(|event| event.version.get()).collect();
    assert_eq!(versions, (1..=10).collect::<Vec<_>>(), "versions without holes, in position order");
    Ok(())
}
