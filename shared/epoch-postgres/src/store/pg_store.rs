//! The event store.
//!
//! The problem: many writers, one order. The invariants are those of [`epoch::store`]; how they are kept stands in
//! [`append`](crate::append) and in `migrations/0001_events.sql`; how they are read, in [`streams`](crate::streams).

use epoch::{
    Aggregate, Position, Version,
    cache::Loaded,
    local::LocalBus,
    state::{Change, StateStore},
    store::{Append, Appended, CommandRecord, FoundCommand, StoreError},
};
use sqlx::{PgConnection, PgPool, Row};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot, watch,
};
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    database::error::store_error,
    database::rows::count,
    store::appender::{Appender, QUEUE, Request},
    store::loader::Loads,
};

/// An event store in one schema of a Postgres database; cheap to clone.
#[derive(Clone)]
pub struct PgStore {
    pool: PgPool,
    requests: mpsc::Sender<Request>,
    pub(crate) loads: Loads,
    local: LocalBus,
    head: watch::Sender<u64>,
}

impl PgStore {
    /// A store on `pool`, whose connections have the service's schema first in their search path, and the task that appends for
    /// it. Run the task for as long as the store is used.
    #[must_use]
    pub fn new(pool: PgPool, local: LocalBus) -> (Self, Appender) {
        let (requests, receiver) = mpsc::channel(QUEUE);
        let (head, _) = watch::channel(0);
        let (loads, loader) = Loads::new(pool.clone());
        let appender =
            Appender { loader, pool: pool.clone(), requests: receiver, local: local.clone(), head: head.clone() };
        (Self { pool, requests, loads, local, head }, appender)
    }

    /// The connections.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The subscriptions of this process.
    #[must_use]
    pub fn local(&self) -> &LocalBus {
        &self.local
    }

    /// Changes whenever this process has committed events.
    pub(crate) fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// Tells this process that events were committed by a transaction of its own.
    pub(crate) fn committed(&self, position: Position) {
        self.head.send_replace(position.get());
    }
}

impl epoch::store::Appender for PgStore {
    type Executor = PgConnection;

    fn append(&self, append: Append) -> impl Future<Output = Result<Appended, StoreError>> + Send {
        let stopped = || StoreError::Unavailable { detail: "the appender has stopped".to_owned() };
        let (answer, answered) = oneshot::channel();
        let sent = self.requests.try_send(Request { append, answer });
        async move {
            match sent {
                Ok(()) => {}
                Err(TrySendError::Full(request)) => self.requests.send(request).await.map_err(|_| stopped())?,
                Err(TrySendError::Closed(_)) => return Err(stopped()),
            }
            answered.await.map_err(|_| stopped())?
        }
        .instrument(tracing::debug_span!("append"))
    }

    async fn append_with_state<A: Aggregate>(
        &self,
        append: Append,
        states: &dyn StateStore<A, PgConnection>,
        change: &Change<A>,
    ) -> Result<Appended, StoreError> {
        self.append_and_write(append, states, change).instrument(tracing::debug_span!("append")).await
    }

    async fn read_state<A: Aggregate>(
        &self,
        states: &dyn StateStore<A, PgConnection>,
        id: Uuid,
    ) -> Result<Option<Loaded<A>>, StoreError> {
        let mut connection = self.pool.acquire().await.map_err(|error| store_error(&error))?;
        states.get_by_id(&mut connection, id).await
    }

    async fn find_command(&self, id: Uuid, fingerprint: &[u8]) -> Result<Option<FoundCommand>, StoreError> {
        let mut connection = self.pool.acquire().await.map_err(|error| store_error(&error))?;
        find_command(&mut connection, id, fingerprint).await
    }
}

pub(crate) const FIND_COMMAND: &str =
    "select fingerprint = $2, aggregate_id, version from commands where command_id = $1";

pub(crate) async fn find_command(
    connection: &mut PgConnection,
    id: Uuid,
    fingerprint: &[u8],
) -> Result<Option<FoundCommand>, StoreError> {
    let row = sqlx::query(FIND_COMMAND).bind(id).bind(fingerprint).fetch_optional(connection).await;
    let Some(row) = row.map_err(|error| store_error(&error))? else { return Ok(None) };
    let read = || -> Result<(bool, Uuid, i64), sqlx::Error> { Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)) };
    let (same, aggregate_id, version) = read().map_err(|error| store_error(&error))?;
    if !same {
        return Ok(Some(FoundCommand::Other));
    }
    Ok(Some(FoundCommand::Same(CommandRecord { aggregate_id, version: Version::new(count(version)?) })))
}
