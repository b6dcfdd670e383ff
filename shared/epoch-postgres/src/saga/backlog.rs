//! What sagas wait for, as figures.
//!
//! The problem: a worker that has stopped, or another side that has been away for days, is no error anywhere.
//! The invariant: the figures are what the tables hold now, counted by an index and up to a bound, however much waits.

use std::time::Duration;

use epoch::{Timestamp, store::StoreError};
use sqlx::Row;
use tokio_util::sync::CancellationToken;

use crate::{database::error::store_error, database::rows::count, store::pg_store::PgStore};

/// The most that is counted.
const MOST: i64 = 10_000;

const COUNT: &str = "select \
     (select count(*) from (select from saga_timers where saga = $1 and parked_at is null and try_at <= $2 limit $3) t), \
     (select count(*) from (select from saga_effects where saga = $1 and parked_at is null limit $3) e), \
     (select count(*) from (select from saga_timers where saga = $1 and parked_at is not null limit $3) t), \
     (select count(*) from (select from saga_effects where saga = $1 and parked_at is not null limit $3) e)";

/// How much of a saga waits; at most 10,000 of each are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SagaBacklog {
    /// Timers that are due and have not been taken.
    pub due_timers: u64,
    /// Effects in the outbox that are not parked.
    pub effects: u64,
    /// Timers that somebody must release.
    pub parked_timers: u64,
    /// Effects whose answers somebody must release.
    pub parked_effects: u64,
}

/// What waits of the saga `saga` at `now`.
///
/// # Errors
/// [`StoreError`] when the database can't be read.
pub async fn backlog(store: &PgStore, saga: &str, now: Timestamp) -> Result<SagaBacklog, StoreError> {
    let query = sqlx::query(COUNT).bind(saga).bind(now.as_millis()).bind(MOST);
    let row = query.fetch_one(store.pool()).await.map_err(|error| store_error(&error))?;
    let figure =
        |column: usize| -> Result<u64, StoreError> { count(row.try_get(column).map_err(|error| store_error(&error))?) };
    Ok(SagaBacklog {
        due_timers: figure(0)?,
        effects: figure(1)?,
        parked_timers: figure(2)?,
        parked_effects: figure(3)?,
    })
}

/// Keeps the gauges of what waits of these sagas, until `stop`.
pub async fn report_backlog(store: &PgStore, sagas: &[&'static str], every: Duration, stop: CancellationToken) {
    loop {
        for saga in sagas {
            match backlog(store, saga, Timestamp::now()).await {
                Ok(backlog) => show(saga, backlog),
                Err(error) => tracing::warn!(saga, %error, "what waits of a saga can't be counted"),
            }
        }
        if stop.run_until_cancelled(tokio::time::sleep(every)).await.is_none() {
            return;
        }
    }
}

fn show(saga: &'static str, backlog: SagaBacklog) {
    metrics::gauge!("epoch_saga_waiting", "saga" => saga, "what" => "timers").set(figure(backlog.due_timers));
    metrics::gauge!("epoch_saga_waiting", "saga" => saga, "what" => "effects").set(figure(backlog.effects));
    metrics::gauge!("epoch_saga_parked", "saga" => saga, "what" => "timers").set(figure(backlog.parked_timers));
    metrics::gauge!("epoch_saga_parked", "saga" => saga, "what" => "effects").set(figure(backlog.parked_effects));
}

/// At most [`MOST`] is counted, so nothing is lost.
fn figure(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
