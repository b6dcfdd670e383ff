//! The relay: publishes the log to a bus.
//!
//! An event must reach the bus if and only if it was committed, although bus and database share no transaction and the
//! process may die at any point. The relay publishes at least once, and in version order per aggregate. One leader per
//! schema reads the log in position order, publishes, waits for the acknowledgements, and only then advances its cursor
//! by the acknowledged prefix. Each leader has a higher fence than the one before; a former leader can't advance the
//! cursor.

use std::{sync::Arc, time::Duration};

use epoch::{Envelope, Position, bus::Bus, retry::RetryPolicy, store::StoreError};
use sqlx::{Connection, FromRow, PgConnection};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    database::{
        error::store_error,
        rows::{bigint, unsigned},
    },
    store::pg_store::PgStore,
};

/// How many events are published before the cursor advances.
const BATCH: i64 = 1_000;
/// How often the leader looks for events of other processes.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// After this many polls without events, the leader checks its fence.
const FENCE_CHECK_POLLS: u32 = 5;
/// How often a candidate tries to become the leader.
const CANDIDATE_INTERVAL: Duration = Duration::from_millis(500);

const LOCK_LEADERSHIP: &str =
    "select pg_try_advisory_lock((1162891076::bigint << 32) | 'relays'::regclass::oid::bigint)";

/// Publishes a store's events to a bus.
pub struct Relay {
    store: PgStore,
    bus: Arc<dyn Bus>,
    name: &'static str,
}

/// The progress of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayStatus {
    /// The last position that the bus has acknowledged.
    pub published: Position,
    /// The last position in the log.
    pub head: Position,
    /// The fence of the current leader.
    pub fence: u64,
}

#[derive(FromRow)]
struct StatusRow {
    published: i64,
    fence: i64,
    head: i64,
}

/// The cursor of a new leader.
#[derive(FromRow)]
struct LeaderCursor {
    position: i64,
    fence: i64,
}

/// The reason why a leader stops.
#[derive(Debug, thiserror::Error)]
enum Resignation {
    #[error("another relay is the leader")]
    Fenced,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for Resignation {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(store_error(&error))
    }
}

impl Relay {
    /// Creates a relay of `store`. `name` distinguishes the relays of one schema, for example `kafka`.
    pub fn new(store: PgStore, bus: Arc<dyn Bus>, name: &'static str) -> Self {
        Self { store, bus, name }
    }

    /// Returns the progress of the relay.
    ///
    /// # Errors
    /// [`StoreError`] when the database can't be read.
    pub async fn status(&self) -> Result<RelayStatus, StoreError> {
        let query = sqlx::query_as(include_str!("relay/sql/status.sql")).bind(self.name);
        let row: StatusRow = query.fetch_one(self.store.pool()).await.map_err(|error| store_error(&error))?;
        Ok(RelayStatus {
            published: Position::new(unsigned(row.published)?),
            head: Position::new(unsigned(row.head)?),
            fence: unsigned(row.fence)?,
        })
    }

    /// Moves the cursor back to `to`, to publish the later events again to a bus that has lost them. Subscriptions drop
    /// duplicates. Returns the new position of the cursor, which is at most its old one.
    ///
    /// The current leader detects the new fence and resigns; the next one starts at the new position.
    ///
    /// # Errors
    /// [`StoreError`] when the database can't be reached.
    pub async fn rewind(&self, to: Position) -> Result<Position, StoreError> {
        let query = sqlx::query_scalar::<_, i64>(include_str!("relay/sql/rewind.sql"));
        let query = query.bind(self.name).bind(bigint(to.get()));
        let position = query.fetch_optional(self.store.pool()).await.map_err(|error| store_error(&error))?;
        position.map_or(Ok(Position::START), |position| Ok(Position::new(unsigned(position)?)))
    }

    /// Publishes until `stop`. Waits while another process is the leader.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.lead(&stop).await {
                Ok(()) => {}
                Err(error) => tracing::warn!(relay = self.name, %error, "relay resigned"),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(CANDIDATE_INTERVAL) => {}
            }
        }
    }

    /// Leads until `stop`. Returns at once when another process is the leader.
    async fn lead(&self, stop: &CancellationToken) -> Result<(), Resignation> {
        // The lock belongs to this connection: when the connection or the process dies, another relay becomes the
        // leader.
        let options = self.store.pool().connect_options();
        let mut lock = PgConnection::connect_with(&options).await?;
        let is_leader: bool = sqlx::query_scalar(LOCK_LEADERSHIP).fetch_one(&mut lock).await?;
        let result = if is_leader { self.publish(&mut lock, stop).await } else { Ok(()) };
        // An error means that the server has closed the connection already.
        let _ = lock.close().await;
        result
    }

    async fn publish(&self, connection: &mut PgConnection, stop: &CancellationToken) -> Result<(), Resignation> {
        let query = sqlx::query_as(include_str!("relay/sql/begin_leadership.sql")).bind(self.name);
        let LeaderCursor { position, fence } = query.fetch_one(&mut *connection).await?;
        let mut published = Position::new(unsigned(position)?);
        tracing::info!(relay = self.name, fence, position = %published, "relay leads");
        let mut head = self.store.head();
        let (mut failed, mut idle_polls) = (0, 0_u32);
        while !stop.is_cancelled() {
            head.borrow_and_update();
            let page = self.store.page(&[], published, BATCH).await?;
            if page.is_empty() {
                idle_polls += 1;
                if idle_polls.is_multiple_of(FENCE_CHECK_POLLS) {
                    self.check_fence(connection, fence).await?;
                }
                tokio::select! {
                    () = stop.cancelled() => {}
                    _ = tokio::time::timeout(POLL_INTERVAL, head.changed()) => {}
                }
                continue;
            }
            let events: Vec<Arc<Envelope>> = page.into_iter().map(Arc::new).collect();
            let span = tracing::debug_span!("publish", relay = self.name, events = events.len());
            let acknowledged = match self.bus.publish(&events).instrument(span).await {
                Ok(()) => {
                    failed = 0;
                    events.len()
                }
                Err(error) => {
                    failed += 1;
                    tracing::warn!(relay = self.name, %error, failed, "publishing failed");
                    error.acknowledged
                }
            };
            if let Some(last) = acknowledged.checked_sub(1).and_then(|last| events.get(last)) {
                published = last.position;
                self.advance(connection, published, fence).await?;
                metrics::counter!("epoch_relayed_total", "relay" => self.name).increment(acknowledged as u64);
            }
            if failed > 0 {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(RetryPolicy::HANDLER.wait(failed)) => {}
                }
            }
        }
        Ok(())
    }

    /// Fails when another leader has a higher fence. A leader that publishes detects this when it advances.
    async fn check_fence(&self, connection: &mut PgConnection, fence: i64) -> Result<(), Resignation> {
        let query = "select fence from relays where name = $1";
        let actual: Option<i64> = sqlx::query_scalar(query).bind(self.name).fetch_optional(connection).await?;
        if actual == Some(fence) { Ok(()) } else { Err(Resignation::Fenced) }
    }

    async fn advance(&self, connection: &mut PgConnection, to: Position, fence: i64) -> Result<(), Resignation> {
        let query = "update relays set position = $2 where name = $1 and fence = $3";
        let moved = sqlx::query(query).bind(self.name).bind(bigint(to.get())).bind(fence).execute(connection).await?;
        if moved.rows_affected() == 1 { Ok(()) } else { Err(Resignation::Fenced) }
    }
}
