//! The lag of subscriptions.
//!
//! A read model that follows slowly or not at all reports no error, so its lag is measured. The measurement counts
//! events that are committed in this log and not applied; it does not read the whole log each time, and an idle
//! subscription costs the same for any length of the log. Events of other services are not in this log; the bus has its
//! own figures.

use std::time::Duration;

use epoch::{Timestamp, store::StoreError};
use sqlx::FromRow;
use tokio_util::sync::CancellationToken;

use crate::{
    database::{error::store_error, rows::unsigned},
    delivery::progress::Progress,
};

/// How many events are read at most to count the waiting ones.
const MAX_EVENTS: i64 = 10_000;

/// The events of its schema's log that a subscription has not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// Events committed and not applied, without events of parked aggregates.
    pub events: u64,
    /// Whether `events` is the full count. If not, there are more.
    pub exact: bool,
    /// How long ago the oldest of them was recorded, in milliseconds.
    pub behind_ms: u64,
    /// The number of parked aggregates.
    pub parked: u64,
}

#[derive(FromRow)]
struct LagRow {
    waiting: i64,
    oldest: Option<i64>,
    exact: bool,
    parked: i64,
}

impl Progress {
    /// Returns the lag of `subscription`, which listens to `aggregates`.
    ///
    /// # Errors
    /// [`StoreError`] when the tables can't be read.
    pub async fn lag(&self, subscription: &str, aggregates: &[&'static str]) -> Result<Lag, StoreError> {
        let query = sqlx::query_as("select waiting, oldest, exact, parked from epoch_lag($1, $2, $3)");
        let row = query.bind(subscription).bind(aggregates).bind(MAX_EVENTS).fetch_one(self.pool()).await;
        let row: LagRow = row.map_err(|error| store_error(&error))?;
        let behind_ms = row.oldest.map_or(0, |oldest| Timestamp::now().as_millis().saturating_sub(oldest).max(0));
        Ok(Lag {
            events: unsigned(row.waiting)?,
            exact: row.exact,
            behind_ms: unsigned(behind_ms)?,
            parked: unsigned(row.parked)?,
        })
    }

    /// Updates the gauges `epoch_lag_events`, `epoch_lag_seconds` and `epoch_parked_aggregates` of these subscriptions
    /// every `every`, until `stop`.
    pub async fn report_lag(
        &self,
        subscriptions: Vec<(&'static str, &'static [&'static str])>,
        every: Duration,
        stop: CancellationToken,
    ) {
        loop {
            for (name, aggregates) in &subscriptions {
                match self.lag(name, aggregates).await {
                    Ok(lag) => set_gauges(name, lag),
                    Err(error) => tracing::debug!(subscription = name, %error, "lag can't be read"),
                }
            }
            if stop.run_until_cancelled(tokio::time::sleep(every)).await.is_none() {
                return;
            }
        }
    }
}

fn set_gauges(name: &'static str, lag: Lag) {
    let capped = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    metrics::gauge!("epoch_lag_events", "subscription" => name).set(capped(lag.events));
    metrics::gauge!("epoch_lag_seconds", "subscription" => name).set(capped(lag.behind_ms / 1_000));
    metrics::gauge!("epoch_parked_aggregates", "subscription" => name).set(capped(lag.parked));
}
