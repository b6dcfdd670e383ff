//! The rows of `saga_timers`.

use epoch::{Timestamp, saga::Saga};
use sqlx::{FromRow, PgConnection, PgPool};
use uuid::Uuid;

use crate::delivery::error::HandlerError;

/// How many due timers are read at once.
pub(super) const BATCH: i64 = 200;

#[derive(FromRow)]
pub(super) struct DueTimer {
    pub(super) id: Uuid,
    pub(super) instance: String,
    pub(super) timer: String,
    /// UTC milliseconds.
    pub(super) due_at: i64,
    pub(super) attempts: i32,
}

/// Sets a timer, replacing the one of the same value.
pub(super) async fn set<S: Saga>(
    connection: &mut PgConnection,
    key: &str,
    id: Uuid,
    timer: &S::Timer,
    at: Timestamp,
) -> Result<(), HandlerError> {
    let timer = serde_json::to_string(timer).map_err(HandlerError::refused)?;
    let query = sqlx::query(include_str!("sql/set_timer.sql")).bind(id).bind(S::NAME).bind(key).bind(timer);
    query.bind(at.as_millis()).execute(connection).await?;
    Ok(())
}

/// Deletes a timer, if it is set.
pub(super) async fn cancel<S: Saga>(
    connection: &mut PgConnection,
    key: &str,
    timer: &S::Timer,
) -> Result<(), HandlerError> {
    let timer = serde_json::to_string(timer).map_err(HandlerError::refused)?;
    let query = "delete from saga_timers where saga = $1 and instance = $2 and timer = $3";
    sqlx::query(query).bind(S::NAME).bind(key).bind(timer).execute(connection).await?;
    Ok(())
}

/// Deletes all timers of an instance.
pub(super) async fn cancel_all<S: Saga>(connection: &mut PgConnection, key: &str) -> Result<(), HandlerError> {
    let query = "delete from saga_timers where saga = $1 and instance = $2";
    sqlx::query(query).bind(S::NAME).bind(key).execute(connection).await?;
    Ok(())
}

/// Returns the first due timers.
pub(super) async fn due(pool: &PgPool, saga: &str, now: Timestamp) -> Result<Vec<DueTimer>, sqlx::Error> {
    let query = sqlx::query_as(include_str!("sql/due_timers.sql")).bind(saga).bind(now.as_millis()).bind(BATCH);
    query.fetch_all(pool).await
}

/// Records a failed attempt: the timer is due again at `try_at`, or parked.
pub(super) async fn record_failure(
    pool: &PgPool,
    id: Uuid,
    error: &str,
    try_at: i64,
    parked_at: Option<Timestamp>,
) -> Result<(), sqlx::Error> {
    let query = sqlx::query(include_str!("sql/record_timer_failure.sql")).bind(id).bind(error).bind(try_at);
    query.bind(parked_at.map(Timestamp::as_millis)).execute(pool).await?;
    Ok(())
}
