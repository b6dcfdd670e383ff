//! What an event store promises.
//!
//! The problem: a store is asked by many at once, and each must either be first or be told who was.
//!
//! The invariants, proven by the conformance suite in [`testkit`](crate::testkit): an append is whole or not at all; versions have no
//! holes; positions grow in commit order; a repeated command appends nothing and gives the first result.

use std::{future::Future, sync::Arc};

use futures::{FutureExt, TryStreamExt, future::BoxFuture, stream::BoxStream};
use uuid::Uuid;

use crate::{
    aggregate::Aggregate,
    bounds::{Positions, Versions},
    cache::Loaded,
    context::CommandContext,
    envelope::Envelope,
    event::{CodecError, DomainEvent, Encoded},
    fold::Recorded,
    local::Receipt,
    state::{Change, StateStore},
    version::{Position, Version},
};

/// An encoded event that isn't in a store yet: it has no version and no position, since only the store gives those.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Names the event (UUIDv7).
    pub event_id: Uuid,
    /// The event's name.
    pub name: &'static str,
    /// Payload and schema.
    pub encoded: Encoded,
}

/// The most bytes of an event's payload. A broker takes messages of 1 MiB by default, headers included; one event that it
/// refuses would hold back all that come behind it.
pub const MAX_PAYLOAD_BYTES: usize = 768 * 1024;

impl NewEvent {
    /// Encodes an event.
    ///
    /// # Errors
    /// [`CodecError`] when it doesn't fit its schema or is longer than [`MAX_PAYLOAD_BYTES`].
    pub fn encode<E: DomainEvent>(event: &E) -> Result<Self, CodecError> {
        let encoded = event.encode()?;
        if encoded.payload.len() > MAX_PAYLOAD_BYTES {
            let detail = format!("{} bytes, at most {MAX_PAYLOAD_BYTES} are possible", encoded.payload.len());
            return Err(CodecError::Encode { name: event.name().to_owned(), detail });
        }
        Ok(Self { event_id: Uuid::now_v7(), name: event.name(), encoded })
    }
}

/// One command's events for one aggregate.
#[derive(Debug, Clone)]
pub struct Append {
    /// The aggregate's name.
    pub aggregate: &'static str,
    /// Which aggregate of that name.
    pub aggregate_id: Uuid,
    /// The version the decision was made at.
    pub expected: Version,
    /// Set when the decision was made on events that weren't committed yet: the id of the last of them. A version alone
    /// doesn't tell whose event it counts.
    pub previous: Option<Uuid>,
    /// What was decided. Empty for a repeatable command that had nothing to do: only its result is kept.
    pub events: Vec<NewEvent>,
    /// Who and why.
    pub context: CommandContext,
}

/// What a command came to; kept for as long as the command may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRecord {
    /// The aggregate the command changed.
    pub aggregate_id: Uuid,
    /// The aggregate's version after the command.
    pub version: Version,
}

/// What became of an append.
#[derive(Debug)]
pub enum Appended {
    /// The events are committed.
    Committed {
        /// With versions and positions.
        events: Vec<Arc<Envelope>>,
        /// Tells when the handlers in this process have had them.
        receipt: Receipt,
    },
    /// The aggregate was not at the expected version; nothing was appended.
    Conflict {
        /// Where it is.
        actual: Version,
    },
    /// The command had been committed before; nothing was appended.
    Repeated(CommandRecord),
    /// The command's id belongs to another command; nothing was appended.
    Reused,
}

/// Why a store gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The store can't be reached or has too much to do. Whether an append was committed is not known; repeat the command.
    #[error("event store is unavailable: {detail}")]
    Unavailable {
        /// What was seen.
        detail: String,
    },
    /// A payload doesn't fit its schema.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The store holds or was given something that can't be.
    #[error("event store refused: {detail}")]
    Refused {
        /// What was seen.
        detail: String,
    },
}

/// Opens streams of committed events.
///
/// A stream keeps a bounded part of what it reads in memory, however long it is, and holds nothing of the store's while its
/// reader is busy: one may execute commands while reading, also with few connections. An error ends it.
pub trait Streamer: Send + Sync {
    /// A part of one aggregate's events, in version order.
    fn read(
        &self,
        aggregate: &'static str,
        id: Uuid,
        bounds: Versions,
    ) -> BoxStream<'static, Result<Envelope, StoreError>>;

    /// A part of the store's events, in position order, up to the end as it is when reading begins. `aggregates` are the
    /// categories wanted; empty: all of them.
    fn read_all(
        &self,
        aggregates: &[&'static str],
        bounds: Positions,
    ) -> BoxStream<'static, Result<Envelope, StoreError>>;

    /// Shows a part of one aggregate's events to `visit`, in version order: only what a fold needs of them. Ends with the first
    /// error of `visit`.
    fn visit<'a>(
        &'a self,
        aggregate: &'static str,
        id: Uuid,
        bounds: Versions,
        visit: &'a mut (dyn FnMut(Recorded<'_>) -> Result<(), StoreError> + Send),
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            let mut events = self.read(aggregate, id, bounds);
            while let Some(event) = events.try_next().await? {
                let Envelope { version, schema, .. } = event;
                visit(Recorded { version, event_name: &event.event_name, schema, payload: &event.payload })?;
            }
            Ok(())
        }
        .boxed()
    }

    /// One aggregate's events after `after`, in version order.
    fn stream(
        &self,
        aggregate: &'static str,
        id: Uuid,
        after: Version,
    ) -> BoxStream<'static, Result<Envelope, StoreError>> {
        self.read(aggregate, id, Versions::since(after))
    }

    /// The store's events after `after`, in position order, up to the end as it is now. `aggregates` empty: all of them.
    fn stream_all(
        &self,
        aggregates: &[&'static str],
        after: Position,
    ) -> BoxStream<'static, Result<Envelope, StoreError>> {
        self.read_all(aggregates, Positions::since(after))
    }
}

/// Appends events.
pub trait Appender: Send + Sync {
    /// What [state stores](StateStore) read and write with: the store's transaction.
    type Executor: Send + 'static;

    /// Appends one command's events if the aggregate is at the expected version. A store should put the append in line before it gives
    /// the future back, so that appends come in the order they were asked for.
    fn append(&self, append: Append) -> impl Future<Output = Result<Appended, StoreError>> + Send;

    /// The same; when the append wins, `change` is written to `states` in the same transaction.
    fn append_with_state<A: Aggregate>(
        &self,
        append: Append,
        states: &dyn StateStore<A, Self::Executor>,
        change: &Change<A>,
    ) -> impl Future<Output = Result<Appended, StoreError>> + Send;

    /// The state that `states` has of an aggregate.
    fn read_state<A: Aggregate>(
        &self,
        states: &dyn StateStore<A, Self::Executor>,
        id: Uuid,
    ) -> impl Future<Output = Result<Option<Loaded<A>>, StoreError>> + Send;

    /// What the command `id` came to, if it was committed as repeatable.
    fn find_command(
        &self,
        id: Uuid,
        fingerprint: &[u8],
    ) -> impl Future<Output = Result<Option<FoundCommand>, StoreError>> + Send;
}

/// A command that was committed before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundCommand {
    /// The same command: this is its result.
    Same(CommandRecord),
    /// Another command under the same id.
    Other,
}

/// Both halves.
pub trait EventStore: Streamer + Appender + Clone + 'static {}

impl<S: Streamer + Appender + Clone + 'static> EventStore for S {}
