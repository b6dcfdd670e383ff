//! Dead letters: the queued events of parked aggregates, and the operations on them.
//!
//! While an aggregate is parked, its events queue in version order. [`retry`] and [`skip`] release them in that order.
//! A skipped event stays in the table with the time of the skip.

use epoch::{
    Timestamp, Version,
    envelope::StreamKey,
    gate::{Cursor, ParkReason},
    store::StoreError,
};
use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    database::{error::store_error, rows::version},
    delivery::{
        cursors::{self, parked_from_text},
        dead_letter_queue,
        error::HandlerError,
        release::release,
        subscription::PgSubscription,
    },
};

/// A queued event of a parked aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The aggregate.
    pub stream: StreamKey,
    /// The event's version.
    pub version: Version,
    /// The event's name.
    pub event_name: String,
    /// Why the aggregate is parked.
    pub parked: ParkReason,
    /// The handler's error; `None` for an event that only queues after the failed one.
    pub error: Option<String>,
    /// How often the event was attempted since it was queued.
    pub attempts: i32,
    /// When the event was queued.
    pub queued_at: Timestamp,
    /// How many events of the aggregate are queued, including this one.
    pub waiting: i64,
}

#[derive(FromRow)]
struct DeadLetterRow {
    aggregate: String,
    aggregate_id: Uuid,
    version: i64,
    event_name: String,
    error: Option<String>,
    attempts: i32,
    queued_at: i64,
    parked: String,
    waiting: i64,
}

impl DeadLetterRow {
    fn dead_letter(self) -> Result<DeadLetter, StoreError> {
        Ok(DeadLetter {
            stream: StreamKey { aggregate: self.aggregate.into(), id: self.aggregate_id },
            version: version(self.version)?,
            event_name: self.event_name,
            parked: parked_from_text(&self.parked),
            error: self.error,
            attempts: self.attempts,
            queued_at: Timestamp::from_millis(self.queued_at),
            waiting: self.waiting,
        })
    }
}

/// Returns at most `limit` queued events, by aggregate in version order.
///
/// # Errors
/// [`StoreError`] when the database can't be read.
pub async fn list(subscription: &PgSubscription, limit: i64) -> Result<Vec<DeadLetter>, StoreError> {
    let runner = &subscription.runner;
    let key = runner.key().await.map_err(|error| store_error(&error))?;
    let query = sqlx::query_as(include_str!("sql/list_dead_letters.sql")).bind(key).bind(limit);
    let rows: Vec<DeadLetterRow> = query.fetch_all(runner.store.pool()).await.map_err(|error| store_error(&error))?;
    rows.into_iter().map(DeadLetterRow::dead_letter).collect()
}

/// Returns whether an aggregate is parked for a subscription.
///
/// # Errors
/// [`StoreError`] when the database can't be read.
pub async fn is_parked(subscription: &PgSubscription, stream: &StreamKey) -> Result<bool, StoreError> {
    let runner = &subscription.runner;
    let key = runner.key().await.map_err(|error| store_error(&error))?;
    let query = sqlx::query_scalar(include_str!("sql/is_parked.sql")).bind(key).bind(stream.id);
    let parked = query.bind(stream.aggregate.as_ref()).fetch_one(runner.store.pool()).await;
    parked.map_err(|error| store_error(&error))
}

/// Attempts the queued events of a parked aggregate again, in order, and unparks it when all are applied. Returns how
/// many were applied.
///
/// # Errors
/// The handler's error on the first event that it still can't apply; the aggregate stays parked there.
pub async fn retry(subscription: &PgSubscription, stream: &StreamKey) -> Result<usize, HandlerError> {
    release(&subscription.runner, stream).await
}

/// Skips the first queued event of a parked aggregate, then releases the others as [`retry`] does.
///
/// # Errors
/// As [`retry`]; the event stays skipped.
pub async fn skip(subscription: &PgSubscription, stream: &StreamKey) -> Result<usize, HandlerError> {
    let runner = &subscription.runner;
    let generation = &runner.generation().await?;
    let key = &*generation.key;
    let mut tx = runner.store.begin().await?;
    let cursor = cursors::lock_one(tx.connection(), generation, stream).await?;
    let mut queued = dead_letter_queue::queued(tx.connection(), key, stream, cursor.version, 1).await?;
    let Some(first) = queued.pop() else {
        tx.rollback().await?;
        return Ok(0);
    };
    dead_letter_queue::mark_skipped(tx.connection(), key, stream, first.version).await?;
    let moved = Cursor { version: first.version, parked: cursor.parked };
    cursors::write(tx.connection(), generation, std::iter::once((stream, &moved))).await?;
    drop(tx.commit().await?);
    runner.progress.notify();
    tracing::warn!(
        subscription = key, aggregate = %stream.aggregate, id = %stream.id, version = %first.version, "event skipped"
    );
    release(runner, stream).await
}
