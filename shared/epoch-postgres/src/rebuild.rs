//! Rebuilding a projection beside the one in use.
//!
//! The problem: a projection that makes something new of old events must read all of them again, which takes long; meanwhile
//! people want to read, commands go on, and processes come and go.
//!
//! The invariant: a new generation is filled through the gate like any other subscription, into tables and under cursors of its
//! own, and replaces the old one in one transaction, in which it has everything that the old one had. Until that transaction
//! the old one serves; a rebuild that ends before it, however it ends, is taken up again by the next one. Events that the old
//! one had not applied come to the new one the way they would have come.
//!
//! Events of the service itself come from its log, other services' from the bus, from the beginning, in a consumer group of the
//! generation's own.
//!
//! What can be rebuilt: plain tables that only this handler writes, as [`tables`](epoch::handler::EventHandler::tables) says; a
//! handler that writes others ends its rebuild.
//! Not: tables that views, or foreign keys of other tables, depend on, inherited or partitioned ones, and those with serial
//! columns (identities are fine). Row security and ownership are not copied; indexes, constraints, triggers and grants are.

mod building;
mod swap;

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
    bus::Bus,
    envelope::StreamKey,
    gate::Way,
    handler::{DeliverError, Delivered, Subscription},
    store::StoreError,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{database::error::store_error, delivery::subscription::PgSubscription};

use self::building::Building;

/// Events brought through the gate at once.
const BATCH: i64 = 500;
/// How often to look whether the new generation has what the old one has.
const POLL: Duration = Duration::from_millis(100);
/// How long a rebuild that gets nothing waits for what is missing.
const STALLED: Duration = Duration::from_secs(120);

/// How far a rebuild is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RebuildProgress {
    /// The generation that is built.
    pub generation: u64,
    /// Events it has applied, those of earlier attempts included.
    pub done: u64,
    /// Events that the generation in use had applied when it was last asked.
    pub total: u64,
    /// Events applied in this attempt.
    pub applied: u64,
    /// How long this attempt has taken.
    pub elapsed: Duration,
}

impl RebuildProgress {
    /// Events a second, in this attempt.
    #[must_use]
    pub fn rate(&self) -> u64 {
        let millis = u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
        self.applied.saturating_mul(1_000) / millis
    }

    /// How long the rest will take at this rate; `None` while nothing is known.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let left = self.total.saturating_sub(self.done);
        left.checked_div(self.rate()).map(Duration::from_secs)
    }
}

/// A rebuild that was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilt {
    /// The generation now in use.
    pub generation: u64,
    /// Events that were applied in this attempt.
    pub applied: u64,
    /// Whether an earlier attempt was taken up.
    pub resumed: bool,
}

/// Why a projection was not rebuilt. But for [`Stopped`](RebuildError::Stopped) and [`Store`](RebuildError::Store), trying again
/// changes nothing.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The handler names no tables that it alone fills.
    #[error("{subscription} has no tables of its own to rebuild")]
    NoTables {
        /// Which subscription.
        subscription: String,
    },
    /// The handler also writes tables that a rebuild can't make anew.
    #[error("{subscription} also writes {tables}, which a rebuild would write once more")]
    Shared {
        /// Which subscription.
        subscription: String,
        /// Which tables.
        tables: String,
    },
    /// The handler wrote tables that it doesn't name; nothing of that was committed.
    #[error("{subscription} writes {tables} without naming them, which a rebuild would write once more")]
    Undeclared {
        /// Which subscription.
        subscription: String,
        /// Which tables.
        tables: String,
    },
    /// Another process rebuilds it.
    #[error("{subscription} is being rebuilt by another process")]
    Busy {
        /// Which subscription.
        subscription: String,
    },
    /// The tables can't be replaced.
    #[error("tables of {subscription} can't be rebuilt: {detail}")]
    Tables {
        /// Which subscription.
        subscription: String,
        /// What is in the way.
        detail: String,
    },
    /// The new generation can't take events that the one in use has applied.
    #[error(
        "{aggregates} aggregates are parked in {generation}, the first is {} {}; see its dead letters",
        first.aggregate, first.id
    )]
    Parked {
        /// The generation's dead letters are kept under this name.
        generation: String,
        /// How many aggregates.
        aggregates: u64,
        /// One of them.
        first: StreamKey,
    },
    /// What the generation in use has applied doesn't come any more.
    #[error("{} {} doesn't come beyond version {reached}; {wanted} is in use", stream.aggregate, stream.id)]
    Stalled {
        /// The aggregate.
        stream: StreamKey,
        /// The version it is at in the new generation.
        reached: u64,
        /// The version it is at in the one in use.
        wanted: u64,
    },
    /// It was told to stop; the next rebuild goes on from here.
    #[error("stopped; the next rebuild goes on from here")]
    Stopped,
    /// The gate took nothing.
    #[error(transparent)]
    Deliver(#[from] DeliverError),
    /// The database gave no answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for RebuildError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(store_error(&error))
    }
}

/// Rebuilds one projection.
pub struct Rebuild {
    /// The subscription in use.
    subscription: PgSubscription,
    bus: Option<Arc<dyn Bus>>,
    stalled: Duration,
}

impl Rebuild {
    /// Of `subscription`; `bus` brings what other services' logs hold, from the beginning.
    #[must_use]
    pub fn new(subscription: PgSubscription, bus: Option<Arc<dyn Bus>>) -> Self {
        Self { subscription, bus, stalled: STALLED }
    }

    /// The same with another time to wait for events that don't come.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.stalled = patience;
        self
    }

    /// Builds a new generation, or goes on building one, and puts it in the place of the one in use. `report` is told now and
    /// then how far it is.
    ///
    /// # Errors
    /// [`RebuildError`]; the generation in use stays.
    pub async fn run(
        &self,
        stop: &CancellationToken,
        mut report: impl FnMut(&RebuildProgress) + Send,
    ) -> Result<Rebuilt, RebuildError> {
        let handler = &*self.subscription.handler;
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
    ) -> Result<Rebuilt, RebuildError> {
        // Whoever drops this future stops the consumer too.
        let stop = stop.child_token();
        let _stop_when_dropped = stop.clone().drop_guard();
        let mut run = Run::new(building).await?;
        while run.read(building, BATCH).await? {
            run.report(building, report).await?;
            if stop.is_cancelled() {
                return Err(RebuildError::Stopped);
            }
        }
        let consumer = self.consume(building, &run, &stop).await?;
        let result = self.catch_up(building, &mut run, &stop, report).await;
        stop.cancel();
        if let Some(consumer) = consumer {
            // It was told to stop; what it says about that changes nothing.
            let _ = consumer.await;
        }
        result
    }

    /// Takes other services' events from the bus, if the handler listens to some.
    async fn consume(
        &self,
        building: &Building,
        run: &Run,
        stop: &CancellationToken,
    ) -> Result<Option<tokio::task::JoinHandle<()>>, RebuildError> {
        let Some(bus) = &self.bus else { return Ok(None) };
        if !building.listens_to_others().await? {
            return Ok(None);
        }
        let (bus, stop, counted) = (Arc::clone(bus), stop.clone(), Arc::new(run.counted.clone()));
        Ok(Some(tokio::spawn(async move {
            if let Err(error) = bus.consume(counted, stop).await {
                tracing::error!(%error, "rebuild gets nothing from the bus any more");
            }
        })))
    }

    async fn catch_up(
        &self,
        building: &Building,
        run: &mut Run,
        stop: &CancellationToken,
        report: &mut (impl FnMut(&RebuildProgress) + Send),
    ) -> Result<Rebuilt, RebuildError> {
        let mut moved = (run.applied(), Instant::now());
        loop {
            while run.read(building, BATCH).await? {
                run.report(building, report).await?;
            }
            run.report(building, report).await?;
            let behind = building.behind().await?;
            if behind.is_none() && building.swap(run).await? {
                let rebuilt =
                    Rebuilt { generation: building.number, applied: run.applied(), resumed: building.resumed };
                run.report_last(report);
                return Ok(rebuilt);
            }
            if let Some(behind) = behind {
                building.check_declared()?;
                building.check_parked().await?;
                if moved.0 != run.applied() {
                    moved = (run.applied(), Instant::now());
                } else if moved.1.elapsed() > self.stalled {
                    return Err(behind.stalled());
                }
            }
            if stop.run_until_cancelled(tokio::time::sleep(POLL)).await.is_none() {
                return Err(RebuildError::Stopped);
            }
        }
    }
}

/// A subscription that counts what it applies.
#[derive(Clone)]
struct Counted {
    subscription: PgSubscription,
    applied: Arc<AtomicU64>,
}

#[async_trait]
impl Subscription for Counted {
    fn name(&self) -> &str {
        self.subscription.name()
    }

    fn aggregates(&self) -> &'static [&'static str] {
        self.subscription.aggregates()
    }

    async fn deliver(&self, events: &Batch, way: Way) -> Result<Delivered, DeliverError> {
        let delivered = self.subscription.deliver(events, way).await?;
        self.applied.fetch_add(delivered.applied as u64, Ordering::Relaxed);
        Ok(delivered)
    }
}

/// One attempt.
struct Run {
    counted: Counted,
    /// How far the log was read.
    position: Position,
    /// What earlier attempts had applied.
    before: u64,
    total: u64,
    began: Instant,
    reported: Option<Instant>,
    generation: u64,
}

/// How often to report.
const REPORT: Duration = Duration::from_millis(200);

impl Run {
    async fn new(building: &Building) -> Result<Self, RebuildError> {
        Ok(Self {
            counted: Counted { subscription: building.subscription.clone(), applied: Arc::default() },
            position: building.position,
            before: building.applied().await?,
            total: building.wanted().await?,
            began: Instant::now(),
            reported: None,
            generation: building.number,
        })
    }

    fn applied(&self) -> u64 {
        self.counted.applied.load(Ordering::Relaxed)
    }

    /// Brings a page of the log through the gate; says whether there was one.
    async fn read(&mut self, building: &Building, limit: i64) -> Result<bool, RebuildError> {
        let page = building.store().page(self.counted.aggregates(), self.position, limit).await?;
        let Some(last) = page.last() else { return Ok(false) };
        let reached = last.position;
        let events: Vec<Arc<Envelope>> = page.into_iter().map(Arc::new).collect();
        if let Err(error) = self.counted.deliver(&events, Way::Replay).await {
            building.check_declared()?;
            return Err(error.into());
        }
        building.note_position(reached).await?;
        self.position = reached;
        Ok(true)
    }

    async fn report(
        &mut self,
        building: &Building,
        report: &mut (impl FnMut(&RebuildProgress) + Send),
    ) -> Result<(), RebuildError> {
        if self.reported.is_some_and(|last| last.elapsed() < REPORT) {
            return Ok(());
        }
        if self.before + self.applied() > self.total {
            self.total = building.wanted().await?.max(self.before + self.applied());
        }
        self.reported = Some(Instant::now());
        self.report_last(report);
        Ok(())
    }

    fn report_last(&self, report: &mut (impl FnMut(&RebuildProgress) + Send)) {
        let applied = self.applied();
        let done = self.before + applied;
        let total = self.total.max(done);
        report(&RebuildProgress { generation: self.generation, done, total, applied, elapsed: self.began.elapsed() });
    }
}

/// The generation that is being built, as a subscription: for its dead letters. `None` when there is none.
///
/// # Errors
/// [`StoreError`] when the database can't be read.
pub async fn in_building(subscription: &PgSubscription) -> Result<Option<PgSubscription>, StoreError> {
    building::open(subscription).await.map_err(|error| store_error(&error))
}
