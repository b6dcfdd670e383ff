//! The backlog of sagas, as gauges.
//!
//! A worker that has stopped, or an external system that has been away for days, reports no error. The backlog shows
//! it. Each figure is counted by an index and up to a bound, so the cost does not grow with the backlog.

use std::time::Duration;

use epoch::{Timestamp, store::StoreError};
use sqlx::FromRow;
use tokio_util::sync::CancellationToken;

use crate::{
    database::{error::store_error, rows::unsigned},
    store::pg_store::PgStore,
};

/// The highest count of each figure.
const MAX_COUNT: i64 = 10_000;

/// The backlog of a saga; each figure is at most 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SagaBacklog {
    /// Timers that are due and have not fired.
    pub due_timers: u64,
    /// Effects in the outbox that are not parked.
    pub effects: u64,
    /// Timers that an operator must release.
    pub parked_timers: u64,
    /// Effects that an operator must release.
    pub parked_effects: u64,
}

#[derive(FromRow)]
struct BacklogRow {
    due_timers: i64,
    effects: i64,
    parked_timers: i64,
    parked_effects: i64,
}

/// Returns the backlog of the saga `saga` at `now`.
///
/// # Errors
/// [`StoreError`] when the database can't be read.
pub async fn backlog(store: &PgStore, saga: &str, now: Timestamp) -> Result<SagaBacklog, StoreError> {
    let query = sqlx::query_as(include_str!("sql/backlog.sql")).bind(saga).bind(now.as_millis()).bind(MAX_COUNT);
    let row: BacklogRow = query.fetch_one(store.pool()).await.map_err(|error| store_error(&error))?;
    Ok(SagaBacklog {
        due_timers: unsigned(row.due_timers)?,
        effects: unsigned(row.effects)?,
        parked_timers: unsigned(row.parked_timers)?,
        parked_effects: unsigned(row.parked_effects)?,
    })
}

/// Updates the gauges `epoch_saga_waiting` and `epoch_saga_parked` of these sagas every `every`, until `stop`.
pub async fn report_backlog(store: &PgStore, sagas: &[&'static str], every: Duration, stop: CancellationToken) {
    loop {
        for saga in sagas {
            match backlog(store, saga, Timestamp::now()).await {
                Ok(backlog) => set_gauges(saga, backlog),
                Err(error) => tracing::warn!(saga, %error, "backlog of a saga can't be counted"),
            }
        }
        if stop.run_until_cancelled(tokio::time::sleep(every)).await.is_none() {
            return;
        }
    }
}

fn set_gauges(saga: &'static str, backlog: SagaBacklog) {
    // The counts are bounded, so the conversion is exact.
    let gauge = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    metrics::gauge!("epoch_saga_waiting", "saga" => saga, "what" => "timers").set(gauge(backlog.due_timers));
    metrics::gauge!("epoch_saga_waiting", "saga" => saga, "what" => "effects").set(gauge(backlog.effects));
    metrics::gauge!("epoch_saga_parked", "saga" => saga, "what" => "timers").set(gauge(backlog.parked_timers));
    metrics::gauge!("epoch_saga_parked", "saga" => saga, "what" => "effects").set(gauge(backlog.parked_effects));
}
