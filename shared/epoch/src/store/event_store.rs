//! The traits of an event store.
//!
//! The conformance suite in [`testkit`](crate::testkit) checks these invariants: an append is atomic; versions are
//! gapless; positions grow in commit order; a repeated command appends nothing and returns the first result.

use std::future::Future;

use futures::{FutureExt, TryStreamExt, future::BoxFuture, stream::BoxStream};
use uuid::Uuid;

use super::{
    append::{Append, AppendOutcome, CommandLookup},
    bounds::{Positions, Versions},
    error::StoreError,
    fold::StoredEvent,
    state::{Change, StateStore},
};
use crate::{
    aggregate::{Aggregate, VersionedState},
    event::{
        envelope::Envelope,
        version::{Position, Version},
    },
};

/// Opens streams of committed events.
///
/// A stream of any length buffers a bounded number of events. It holds no connection while its reader is busy, so a
/// reader may execute commands while reading, also with a small connection pool. An error ends the stream.
pub trait Streamer: Send + Sync {
    /// Returns a range of one aggregate's events in version order.
    fn read(
        &self,
        aggregate: &'static str,
        id: Uuid,
        bounds: Versions,
    ) -> BoxStream<'static, Result<Envelope, StoreError>>;

    /// Returns a range of the store's events in position order, ending with the last event at the time of the call.
    ///
    /// `aggregates` filters by aggregate name; empty selects all.
    fn read_all(
        &self,
        aggregates: &[&'static str],
        bounds: Positions,
    ) -> BoxStream<'static, Result<Envelope, StoreError>>;

    /// Passes a range of one aggregate's events to `visit` in version order, without building envelopes.
    ///
    /// # Errors
    /// [`StoreError`] when reading fails, or the first error of `visit`, which ends the range.
    fn visit<'a>(
        &'a self,
        aggregate: &'static str,
        id: Uuid,
        bounds: Versions,
        visit: &'a mut (dyn FnMut(StoredEvent<'_>) -> Result<(), StoreError> + Send),
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            let mut events = self.read(aggregate, id, bounds);
            while let Some(event) = events.try_next().await? {
                let Envelope { version, schema, .. } = event;
                visit(StoredEvent { version, event_name: &event.event_name, schema, payload: &event.payload })?;
            }
            Ok(())
        }
        .boxed()
    }

    /// Returns one aggregate's events after `after` in version order.
    fn stream(
        &self,
        aggregate: &'static str,
        id: Uuid,
        after: Version,
    ) -> BoxStream<'static, Result<Envelope, StoreError>> {
        self.read(aggregate, id, Versions::since(after))
    }

    /// Returns the store's events after `after` in position order, as [`read_all`](Self::read_all) does.
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
    /// The transaction that [state stores](StateStore) read and write with.
    type Executor: Send + 'static;

    /// Appends one command's events if the aggregate is at the expected version.
    ///
    /// A store should enqueue the append before it returns the future, so that appends are committed in call order.
    fn append(&self, append: Append) -> impl Future<Output = Result<AppendOutcome, StoreError>> + Send;

    /// Appends like [`append`](Self::append) and writes `change` to `states` in the same transaction.
    fn append_with_state<A: Aggregate>(
        &self,
        append: Append,
        states: &dyn StateStore<A, Self::Executor>,
        change: &Change<A>,
    ) -> impl Future<Output = Result<AppendOutcome, StoreError>> + Send;

    /// Reads an aggregate's state from `states`. Returns `None` when there is none.
    fn read_state<A: Aggregate>(
        &self,
        states: &dyn StateStore<A, Self::Executor>,
        id: Uuid,
    ) -> impl Future<Output = Result<Option<VersionedState<A>>, StoreError>> + Send;

    /// Looks up an earlier command with this id. Returns `None` when no repeatable command was committed under it.
    fn find_command(
        &self,
        id: Uuid,
        fingerprint: &[u8],
    ) -> impl Future<Output = Result<Option<CommandLookup>, StoreError>> + Send;
}

/// A store that streams and appends.
pub trait EventStore: Streamer + Appender + Clone + 'static {}

impl<S: Streamer + Appender + Clone + 'static> EventStore for S {}
