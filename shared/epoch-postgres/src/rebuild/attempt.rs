//! One attempt of a rebuild: reading the log and reporting progress.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use epoch::{
    Batch, Envelope, Position,
    gate::DeliverySource,
    handler::{DeliverError, DeliveryCounts, Subscription},
};
use tokio::time::Instant;

use crate::{
    delivery::subscription::PgSubscription,
    rebuild::{building::Building, error::RebuildError, progress::RebuildProgress},
};

/// How many events are delivered in one batch.
const BATCH: i64 = 500;
/// The shortest time between two reports.
const REPORT_INTERVAL: Duration = Duration::from_millis(200);

/// A subscription that counts the events it applies.
#[derive(Clone)]
pub(super) struct CountingSubscription {
    subscription: PgSubscription,
    applied: Arc<AtomicU64>,
}

#[async_trait]
impl Subscription for CountingSubscription {
    fn name(&self) -> &str {
        self.subscription.name()
    }

    fn aggregates(&self) -> &'static [&'static str] {
        self.subscription.aggregates()
    }

    async fn deliver(&self, events: &Batch, source: DeliverySource) -> Result<DeliveryCounts, DeliverError> {
        let delivered = self.subscription.deliver(events, source).await?;
        self.applied.fetch_add(delivered.applied as u64, Ordering::Relaxed);
        Ok(delivered)
    }
}

/// One attempt of a rebuild.
pub(super) struct Attempt {
    pub(super) subscription: CountingSubscription,
    /// The position up to which the log is read.
    position: Position,
    /// The events applied by earlier attempts.
    before: u64,
    total: u64,
    began: Instant,
    last_report: Option<Instant>,
    generation: u64,
}

impl Attempt {
    pub(super) async fn new(building: &Building) -> Result<Self, RebuildError> {
        Ok(Self {
            subscription: CountingSubscription { subscription: building.subscription.clone(), applied: Arc::default() },
            position: building.position,
            before: building.applied().await?,
            total: building.applied_by_serving().await?,
            began: Instant::now(),
            last_report: None,
            generation: building.number,
        })
    }

    pub(super) fn applied(&self) -> u64 {
        self.subscription.applied.load(Ordering::Relaxed)
    }

    /// Delivers the next page of the log. Returns whether there was one.
    pub(super) async fn deliver_page(&mut self, building: &Building) -> Result<bool, RebuildError> {
        let page = building.store().page(self.subscription.aggregates(), self.position, BATCH).await?;
        let Some(last) = page.last() else { return Ok(false) };
        let reached = last.position;
        let events: Vec<Arc<Envelope>> = page.into_iter().map(Arc::new).collect();
        if let Err(error) = self.subscription.deliver(&events, DeliverySource::Replay).await {
            building.check_declared()?;
            return Err(error.into());
        }
        building.record_position(reached).await?;
        self.position = reached;
        Ok(true)
    }

    /// Reports the progress, unless the last report is recent.
    pub(super) async fn report(
        &mut self,
        building: &Building,
        report: &mut (impl FnMut(&RebuildProgress) + Send),
    ) -> Result<(), RebuildError> {
        if self.last_report.is_some_and(|last| last.elapsed() < REPORT_INTERVAL) {
            return Ok(());
        }
        if self.before + self.applied() > self.total {
            self.total = building.applied_by_serving().await?.max(self.before + self.applied());
        }
        self.last_report = Some(Instant::now());
        self.report_now(report);
        Ok(())
    }

    pub(super) fn report_now(&self, report: &mut (impl FnMut(&RebuildProgress) + Send)) {
        let applied = self.applied();
        let done = self.before + applied;
        let total = self.total.max(done);
        report(&RebuildProgress { generation: self.generation, done, total, applied, elapsed: self.began.elapsed() });
    }
}
