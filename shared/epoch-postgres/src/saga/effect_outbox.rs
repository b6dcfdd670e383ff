//! The outbox of effects, as rows of `saga_effects`.
//!
//! A worker leases an effect: it moves the next attempt to the end of the lease and counts the attempt. The number of
//! attempts identifies the lease; the row of an expired lease that was leased again no longer matches it.

use epoch::{Timestamp, saga::Saga};
use sqlx::{FromRow, PgConnection, PgPool};
use uuid::Uuid;

use crate::delivery::error::HandlerError;

/// How many effects are leased at once.
const BATCH: i64 = 16;
/// How long a lease lasts: longer than one attempt and the processing of its answer.
const LEASE_MILLIS: i64 = 60_000;

/// A leased effect.
#[derive(FromRow)]
pub(super) struct LeasedEffect {
    pub(super) number: i64,
    pub(super) id: Uuid,
    pub(super) instance: String,
    pub(super) effect: String,
    pub(super) attempts: i32,
    /// The metadata of the event that the instance began with, as JSON.
    pub(super) origin: Option<String>,
}

/// Adds an effect to the outbox.
pub(super) async fn insert<S: Saga>(
    connection: &mut PgConnection,
    key: &str,
    id: Uuid,
    effect: &S::Effect,
    now: Timestamp,
) -> Result<(), HandlerError> {
    let effect = serde_json::to_string(effect).map_err(HandlerError::refused)?;
    let query = "insert into saga_effects (id, saga, instance, effect, try_at) values ($1, $2, $3, $4, $5)";
    sqlx::query(query).bind(id).bind(S::NAME).bind(key).bind(effect).bind(now.as_millis()).execute(connection).await?;
    Ok(())
}

/// Leases due effects, only the oldest of each instance.
pub(super) async fn lease_due(pool: &PgPool, saga: &str, now: Timestamp) -> Result<Vec<LeasedEffect>, sqlx::Error> {
    let now = now.as_millis();
    let query = sqlx::query_as(include_str!("sql/lease_effects.sql")).bind(saga).bind(now);
    query.bind(now.saturating_add(LEASE_MILLIS)).bind(BATCH).fetch_all(pool).await
}

/// Ends a lease without an answer: the effect is due again at `try_at`, or parked.
pub(super) async fn return_lease(
    pool: &PgPool,
    lease: &LeasedEffect,
    error: &str,
    try_at: i64,
    parked_at: Option<Timestamp>,
) -> Result<(), sqlx::Error> {
    sqlx::query(include_str!("sql/return_effect.sql"))
        .bind(lease.number)
        .bind(lease.attempts)
        .bind(try_at)
        .bind(error)
        .bind(parked_at.map(Timestamp::as_millis))
        .execute(pool)
        .await?;
    Ok(())
}
