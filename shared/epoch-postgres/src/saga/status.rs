//! Inspecting an instance, and releasing its parked timers and effects.

use epoch::store::StoreError;
use sqlx::FromRow;

use crate::{database::error::store_error, store::pg_store::PgStore};

/// The status of a saga instance.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct SagaStatus {
    /// The instance's key.
    pub instance: String,
    /// The phase: `running`, `compensating` or `completed`.
    pub phase: String,
    /// The number of set timers, including parked ones.
    pub timers: i64,
    /// The number of effects in the outbox, including parked ones.
    pub effects: i64,
    /// The error of a parked timer or effect, if there is one.
    pub parked: Option<String>,
}

/// Returns the status of one instance of the saga `saga`; `None` when it has not begun.
///
/// # Errors
/// [`StoreError`] when the database can't be read.
pub async fn status(store: &PgStore, saga: &str, instance: &str) -> Result<Option<SagaStatus>, StoreError> {
    let query = sqlx::query_as(include_str!("sql/instance_status.sql")).bind(saga).bind(instance);
    query.fetch_optional(store.pool()).await.map_err(|error| store_error(&error))
}

/// Releases the parked timers and effects of an instance, which are due at once. Returns how many there were.
///
/// # Errors
/// [`StoreError`] when the database can't be written.
pub async fn release(store: &PgStore, saga: &str, instance: &str) -> Result<u64, StoreError> {
    let mut released = 0;
    for query in [include_str!("sql/release_timers.sql"), include_str!("sql/release_effects.sql")] {
        let updated = sqlx::query(query).bind(saga).bind(instance).execute(store.pool()).await;
        released += updated.map_err(|error| store_error(&error))?.rows_affected();
    }
    Ok(released)
}
