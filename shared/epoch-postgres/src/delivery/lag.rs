//! How far subscriptions are behind.
//!
//! The problem: a read model that follows slowly, or not at all, shows nothing wrong by itself; and counting what it has not
//! applied must not read the whole log each time.
//!
//! The invariant: what is counted was committed and is not applied; a subscription that is idle costs the same however long
//! the log is. Events of other services are not in this log; for those, the bus has figures of its own.

use std::time::Duration;

use epoch::{Timestamp, store::StoreError};
use sqlx::{PgPool, Row};
use tokio_util::sync::CancellationToken;

use crate::{database::error::store_error, database::rows::count, delivery::progress::Progress};

/// How many events are looked at to count those that wait.
const MOST: i64 = 10_000;

/// What a subscription has not applied of its schema's own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// Events committed and not applied, without those of parked aggregates.
    pub events: u64,
    /// Whether those are all; else there are more.
    pub exact: bool,
    /// How long ago the oldest of them was recorded, in milliseconds.
    pub behind_ms: u64,
    /// Aggregates that are parked.
    pub parked: u64,
}

impl Progress {
    /// What `subscription`, which listens to `aggregates`, has not applied.
    ///
    /// # Errors
    /// [`StoreError`] when the tables can't be read.
    pub async fn lag(&self, subscription: &str, aggregates: &[&'static str]) -> Result<Lag, StoreError> {
        read(self.pool(), subscription, aggregates).await
    }

    /// Keeps `epoch_lag_events`, `epoch_lag_seconds` and `epoch_parked_aggregates` of these subscriptions up to date until
    /// `stop`.
    pub async fn report_lag(
        &self,
        subscriptions: Vec<(&'static str, &'static [&'static str])>,
        every: Duration,
        stop: CancellationToken,
    ) {
        loop {
            for (name, aggregates) in &subscriptions {
                match self.lag(name, aggregates).await {
                    Ok(lag) => report(name, lag),
                    Err(error) => tracing::debug!(subscription = name, %error, "lag is not known"),
                }
            }
            if stop.run_until_cancelled(tokio::time::sleep(every)).await.is_none() {
                return;
            }
        }
    }
}

fn report(name: &'static str, lag: Lag) {
    metrics::gauge!("epoch_lag_events", "subscription" => name).set(gauge(lag.events));
    metrics::gauge!("epoch_lag_seconds", "subscription" => name).set(gauge(lag.behind_ms / 1_000));
    metrics::gauge!("epoch_parked_aggregates", "subscription" => name).set(gauge(lag.parked));
}

fn gauge(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

async fn read(pool: &PgPool, subscription: &str, aggregates: &[&str]) -> Result<Lag, StoreError> {
    let query = "select waiting, oldest, exact, parked from epoch_lag($1, $2, $3)";
    let row = sqlx::query(query).bind(subscription).bind(aggregates).bind(MOST).fetch_one(pool).await;
    let read = || -> Result<(i64, Option<i64>, bool, i64), sqlx::Error> {
        let row = row?;
        Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))
    };
    let (waiting, oldest, exact, parked) = read().map_err(|error| store_error(&error))?;
    let behind = oldest.map_or(0, |oldest| Timestamp::now().as_millis().saturating_sub(oldest).max(0));
    Ok(Lag { events: count(waiting)?, exact, behind_ms: count(behind)?, parked: count(parked)? })
}
