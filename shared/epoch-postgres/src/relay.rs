//! The relay: from the log to the bus.
//!
//! The problem: an event must reach the bus if and only if it was committed, though bus and database share no transaction,
//! and the process may die in between.
//!
//! The invariant: at least once, and in version order per aggregate. One leader per service reads the log in position order,
//! publishes, waits until the bus has the events, and only then moves its cursor by what was acknowledged. Each leader has a
//! higher fencing number; one that lost its leadership can't move the cursor.

use std::{sync::Arc, time::Duration};

use epoch::{Envelope, Position, bus::Bus, retry::RetryPolicy, store::StoreError};
use sqlx::{Connection, PgConnection, Row};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    database::error::store_error,
    database::rows::{count, number},
    store::pg_store::PgStore,
};

/// Events published before the cursor is moved.
const BATCH: i64 = 1_000;
/// How often to look for events that other processes committed.
const POLL: Duration = Duration::from_millis(100);
/// After how many idle polls the leader looks whether it still is the leader.
const LOOK: u32 = 5;
/// How often one that isn't the leader tries to become it.
const CANDIDATE: Duration = Duration::from_millis(500);

/// Publishes a store's events to a bus.
pub struct Relay {
    store: PgStore,
    bus: Arc<dyn Bus>,
    name: &'static str,
}

/// How far a relay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayStatus {
    /// The last position the bus has.
    pub published: Position,
    /// The last position in the log.
    pub head: Position,
    /// How many leaders there have been.
    pub fence: u64,
}

/// Why a leader stops.
#[derive(Debug, thiserror::Error)]
enum Resigned {
    #[error("another relay is the leader now")]
    Fenced,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for Resigned {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(store_error(&error))
    }
}

impl Relay {
    /// A relay of `store`; `name` tells the relays of one schema apart, as in `kafka`.
    pub fn new(store: PgStore, bus: Arc<dyn Bus>, name: &'static str) -> Self {
        Self { store, bus, name }
    }

    /// How far the relay `name` is.
    ///
    /// # Errors
    /// [`StoreError`] when the database can't be read.
    pub async fn status(&self) -> Result<RelayStatus, StoreError> {
        let query = "select coalesce(r.position, 0), coalesce(r.fence, 0), coalesce(h.position, 0) \
             from (select max(position) as position from events) h left join relays r on r.name = $1";
        let row = sqlx::query(query).bind(self.name).fetch_one(self.store.pool()).await;
        let row = row.map_err(|error| store_error(&error))?;
        let read =
            || -> Result<(i64, i64, i64), sqlx::Error> { Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)) };
        let (published, fence, head) = read().map_err(|error| store_error(&error))?;
        Ok(RelayStatus {
            published: Position::new(count(published)?),
            head: Position::new(count(head)?),
            fence: count(fence)?,
        })
    }

    /// Publishes again what came after `to`, for a bus that has lost it; subscriptions drop what they know. Gives the position
    /// from which it goes on, which is never beyond what was published. The leader of the moment notices and begins there.
    ///
    /// # Errors
    /// [`StoreError`] when the database can't be reached.
    pub async fn rewind(&self, to: Position) -> Result<Position, StoreError> {
        let query =
            "update relays set position = least(position, $2), fence = fence + 1 where name = $1 returning position";
        let query = sqlx::query_scalar::<_, i64>(query).bind(self.name).bind(number(to.get()));
        let position = query.fetch_optional(self.store.pool()).await.map_err(|error| store_error(&error))?;
        position.map_or(Ok(Position::START), |position| Ok(Position::new(count(position)?)))
    }

    /// Publishes until `stop`; waits while another process leads.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.lead(&stop).await {
                Ok(()) => {}
                Err(error) => tracing::warn!(relay = self.name, %error, "relay resigned"),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(CANDIDATE) => {}
            }
        }
    }

    /// Leads while it can; `Ok` when another leads or `stop` was asked for.
    async fn lead(&self, stop: &CancellationToken) -> Result<(), Resigned> {
        // The lock belongs to this connection: when either dies, another relay may lead.
        let options = self.store.pool().connect_options();
        let mut lock = PgConnection::connect_with(&options).await?;
        let query = "select pg_try_advisory_lock((1162891076::bigint << 32) | 'relays'::regclass::oid::bigint)";
        let leads: bool = sqlx::query_scalar(query).fetch_one(&mut lock).await?;
        let result = if leads { self.publish(&mut lock, stop).await } else { Ok(()) };
        // Closing may fail when the server has gone; then it has closed the connection itself.
        let _ = lock.close().await;
        result
    }

    async fn publish(&self, connection: &mut PgConnection, stop: &CancellationToken) -> Result<(), Resigned> {
        let query = "insert into relays (name, fence) values ($1, 1) \
             on conflict (name) do update set fence = relays.fence + 1 returning position, fence";
        let row = sqlx::query(query).bind(self.name).fetch_one(&mut *connection).await?;
        let fence: i64 = row.try_get(1)?;
        let mut published = Position::new(count(row.try_get(0)?)?);
        tracing::info!(relay = self.name, fence, position = %published, "relay leads");
        let mut head = self.store.head();
        let (mut failed, mut idle) = (0, 0_u32);
        while !stop.is_cancelled() {
            head.borrow_and_update();
            let page = self.store.page(&[], published, BATCH).await?;
            if page.is_empty() {
                idle += 1;
                if idle.is_multiple_of(LOOK) {
                    self.check_fence(connection, fence).await?;
                }
                tokio::select! {
                    () = stop.cancelled() => {}
                    _ = tokio::time::timeout(POLL, head.changed()) => {}
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
                    tracing::warn!(relay = self.name, %error, failed, "bus did not take all events");
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

    /// One that publishes finds out by advancing.
    async fn check_fence(&self, connection: &mut PgConnection, fence: i64) -> Result<(), Resigned> {
        let query = "select fence from relays where name = $1";
        let actual: Option<i64> = sqlx::query_scalar(query).bind(self.name).fetch_optional(connection).await?;
        if actual == Some(fence) { Ok(()) } else { Err(Resigned::Fenced) }
    }

    async fn advance(&self, connection: &mut PgConnection, to: Position, fence: i64) -> Result<(), Resigned> {
        let query = "update relays set position = $2 where name = $1 and fence = $3";
        let moved = sqlx::query(query).bind(self.name).bind(number(to.get())).bind(fence).execute(connection).await?;
        if moved.rows_affected() == 1 { Ok(()) } else { Err(Resigned::Fenced) }
    }
}
