//! The event store.
//!
//! The problem: many writers, one order. The invariants are those of [`epoch::store`]; how they are kept stands in
//! [`append`](crate::append) and in `migrations/0001_events.sql`.

use epoch::{
    Envelope, Position, Version,
    local::LocalBus,
    store::{Append, Appended, CommandRecord, FoundCommand, StoreError, Streamer},
};
use futures::{StreamExt, stream::BoxStream};
use sqlx::{PgConnection, PgPool, Row};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot, watch,
};
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    appender::{Appender, QUEUE, Request},
    error::store_error,
    rows::{count, envelope, number},
};

/// An event store in one schema of a Postgres database; cheap to clone.
#[derive(Clone)]
pub struct PgStore {
    pool: PgPool,
    requests: mpsc::Sender<Request>,
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
        let appender = Appender { pool: pool.clone(), requests: receiver, local: local.clone(), head: head.clone() };
        (Self { pool, requests, local, head }, appender)
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

    async fn find_command(&self, id: Uuid, fingerprint: &[u8]) -> Result<Option<FoundCommand>, StoreError> {
        let mut connection = self.pool.acquire().await.map_err(|error| store_error(&error))?;
        find_command(&mut connection, id, fingerprint).await
    }
}

pub(crate) async fn find_command(
    connection: &mut PgConnection,
    id: Uuid,
    fingerprint: &[u8],
) -> Result<Option<FoundCommand>, StoreError> {
    let query = "select fingerprint = $2, aggregate_id, version from commands where command_id = $1";
    let row = sqlx::query(query).bind(id).bind(fingerprint).fetch_optional(connection).await;
    let Some(row) = row.map_err(|error| store_error(&error))? else { return Ok(None) };
    let read = || -> Result<(bool, Uuid, i64), sqlx::Error> { Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)) };
    let (same, aggregate_id, version) = read().map_err(|error| store_error(&error))?;
    if !same {
        return Ok(Some(FoundCommand::Other));
    }
    Ok(Some(FoundCommand::Same(CommandRecord { aggregate_id, version: Version::new(count(version)?) })))
}

/// One aggregate's newer events.
pub(crate) const STREAM: &str = "select position, aggregate, aggregate_id, version, event_id, event_name, schema, \
     payload, metadata, occurred_at, recorded_at from events \
     where aggregate_id = $1 and aggregate = $2 and version > $3 order by version";

const STREAM_ALL: &str = "select position, aggregate, aggregate_id, version, event_id, event_name, schema, payload, \
     metadata, occurred_at, recorded_at from events \
     where position > $1 and (cardinality($2::text[]) = 0 or aggregate = any($2)) order by position limit $3";

/// How many events of the whole store are asked for at a time.
const PAGE: i64 = 1_000;

impl PgStore {
    /// Up to `limit` events after `after`, in position order.
    pub(crate) async fn page(
        &self,
        aggregates: &[&'static str],
        after: Position,
        limit: i64,
    ) -> Result<Vec<Envelope>, StoreError> {
        let rows = sqlx::query(STREAM_ALL)
            .bind(number(after.get()))
            .bind(aggregates)
            .bind(limit)
            .fetch_all(&self.pool)
            .await
            .map_err(|error| store_error(&error))?;
        rows.iter().map(envelope).collect()
    }
}

impl Streamer for PgStore {
    fn stream(
        &self,
        aggregate: &'static str,
        id: Uuid,
        after: Version,
    ) -> BoxStream<'static, Result<Envelope, StoreError>> {
        let pool = self.pool.clone();
        async_stream::try_stream! {
            let query = sqlx::query(STREAM).bind(id).bind(aggregate).bind(number(after.get()));
            let mut rows = query.fetch(&pool);
            while let Some(row) = rows.next().await {
                yield envelope(&row.map_err(|error| store_error(&error))?)?;
            }
        }
        .boxed()
    }

    /// Reads pages, so that a slow reader holds no connection and no snapshot.
    fn stream_all(
        &self,
        aggregates: &[&'static str],
        after: Position,
    ) -> BoxStream<'static, Result<Envelope, StoreError>> {
        let store = self.clone();
        let aggregates = aggregates.to_vec();
        async_stream::try_stream! {
            let mut after = after;
            loop {
                let page = store.page(&aggregates, after, PAGE).await?;
                let Some(last) = page.last() else { break };
                after = last.position;
                for event in page {
                    yield event;
                }
            }
        }
        .boxed()
    }
}
