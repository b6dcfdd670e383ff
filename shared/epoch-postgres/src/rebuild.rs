//! Rebuilding a projection while the current one serves.
//!
//! A projection that derives new rows from old events must read all of them again, which takes long. Meanwhile reads
//! and commands continue, and processes start and stop. A rebuild therefore fills a new generation through the gate,
//! like any other subscription, with tables and cursors of its own. It replaces the serving generation in one
//! transaction, once it has applied every event that the serving one has. Until then the old generation serves, and an
//! interrupted rebuild is resumed by the next one. Events that the old generation had not applied are delivered to the
//! new one.
//!
//! The service's own events are read from its log. Events of other services come from the start of the bus, in a
//! consumer group of the new generation.
//!
//! Plain tables that only this handler writes can be rebuilt, as declared in
//! [`tables`](epoch::handler::EventHandler::tables); a handler that writes other tables ends its rebuild. These tables
//! can't be rebuilt: tables that views or foreign keys of other tables depend on, inherited or partitioned tables, and
//! tables with serial columns (identity columns are fine). Indexes, constraints, triggers and grants are copied; row
//! security and ownership are not.

mod attempt;
mod building;
mod error;
mod generation_row;
mod progress;
mod retired;
mod swap;

use std::{sync::Arc, time::Duration};

use epoch::{bus::Bus, store::StoreError};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use self::{attempt::Attempt, building::Building, swap::swap};
pub use self::{
    error::RebuildError,
    progress::{RebuildProgress, RebuildSummary},
};
use crate::{database::error::store_error, delivery::subscription::PgSubscription};

/// How often the new generation is compared with the serving one.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long a rebuild waits for missing events when none arrive.
const STALL_TIMEOUT: Duration = Duration::from_secs(120);

/// Rebuilds one projection.
pub struct Rebuild {
    /// The serving subscription.
    subscription: PgSubscription,
    bus: Option<Arc<dyn Bus>>,
    stall_timeout: Duration,
}

impl Rebuild {
    /// Creates a rebuild of `subscription`; `bus` delivers the events of other services from their start.
    #[must_use]
    pub fn new(subscription: PgSubscription, bus: Option<Arc<dyn Bus>>) -> Self {
        Self { subscription, bus, stall_timeout: STALL_TIMEOUT }
    }

    /// Sets how long the rebuild waits for missing events when none arrive (default: 120 s).
    #[must_use]
    pub fn with_stall_timeout(mut self, timeout: Duration) -> Self {
        self.stall_timeout = timeout;
        self
    }

    /// Builds a new generation or resumes one, and replaces the serving generation. Calls `report` with the progress.
    ///
    /// # Errors
    /// [`RebuildError`]; the serving generation stays.
    pub async fn run(
        &self,
        stop: &CancellationToken,
        mut report: impl FnMut(&RebuildProgress) + Send,
    ) -> Result<RebuildSummary, RebuildError> {
        let handler = &*self.subscription.runner.handler;
        if handler.tables().is_empty() {
            return Err(RebuildError::NoTables { subscription: handler.name().to_owned() });
        }
        if !handler.also_writes().is_empty() {
            let (subscription, tables) = (handler.name().to_owned(), handler.also_writes().join(", "));
            return Err(RebuildError::Shared { subscription, tables });
        }
        let building = Building::begin(&self.subscription).await?;
        let result = self.build(&building, stop, &mut report).await;
        building.end().await;
        result
    }

    async fn build(
        &self,
        building: &Building,
        stop: &CancellationToken,
        report: &mut (impl FnMut(&RebuildProgress) + Send),
    ) -> Result<RebuildSummary, RebuildError> {
        // The guard stops the consumer when the caller drops this future.
        let stop = stop.child_token();
        let _stop_when_dropped = stop.clone().drop_guard();
        let mut attempt = Attempt::new(building).await?;
        while attempt.deliver_page(building).await? {
            attempt.report(building, report).await?;
            if stop.is_cancelled() {
                return Err(RebuildError::Stopped);
            }
        }
        let consumer = self.consume_other_services(building, &attempt, &stop).await?;
        let result = self.catch_up(building, &mut attempt, &stop, report).await;
        stop.cancel();
        if let Some(consumer) = consumer {
            // The result of the rebuild does not depend on how the consumer ends.
            let _ = consumer.await;
        }
        result
    }

    /// Consumes other services' events from the bus, if the handler listens to any.
    async fn consume_other_services(
        &self,
        building: &Building,
        attempt: &Attempt,
        stop: &CancellationToken,
    ) -> Result<Option<JoinHandle<()>>, RebuildError> {
        let Some(bus) = &self.bus else { return Ok(None) };
        if !building.listens_to_other_services().await? {
            return Ok(None);
        }
        let (bus, stop, subscription) = (Arc::clone(bus), stop.clone(), Arc::new(attempt.subscription.clone()));
        Ok(Some(tokio::spawn(async move {
            if let Err(error) = bus.consume(subscription, stop).await {
                tracing::error!(%error, "consumer of the rebuild has stopped");
            }
        })))
    }

    async fn catch_up(
        &self,
        building: &Building,
        attempt: &mut Attempt,
        stop: &CancellationToken,
        report: &mut (impl FnMut(&RebuildProgress) + Send),
    ) -> Result<RebuildSummary, RebuildError> {
        let mut last_applied = attempt.applied();
        let mut last_change = Instant::now();
        loop {
            while attempt.deliver_page(building).await? {
                attempt.report(building, report).await?;
            }
            attempt.report(building, report).await?;
            let missing = building.missing().await?;
            if missing.is_none() && swap(building, attempt).await? {
                let (generation, resumed) = (building.number, building.resumed);
                let summary = RebuildSummary { generation, applied: attempt.applied(), resumed };
                attempt.report_now(report);
                return Ok(summary);
            }
            if let Some(missing) = missing {
                building.check_declared()?;
                building.check_parked().await?;
                if last_applied != attempt.applied() {
                    last_applied = attempt.applied();
                    last_change = Instant::now();
                } else if last_change.elapsed() > self.stall_timeout {
                    return Err(missing.stalled());
                }
            }
            if stop.run_until_cancelled(tokio::time::sleep(POLL_INTERVAL)).await.is_none() {
                return Err(RebuildError::Stopped);
            }
        }
    }
}

/// Returns the generation that is being built as a subscription, for its dead letters; `None` when there is none.
///
/// # Errors
/// [`StoreError`] when the database can't be read.
pub async fn building_generation(subscription: &PgSubscription) -> Result<Option<PgSubscription>, StoreError> {
    building::find_subscription(subscription).await.map_err(|error| store_error(&error))
}
