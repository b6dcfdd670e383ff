//! What every test of a bus needs: events that follow each other, and consumers that end.
//!
//! The problem: each broker's own tests, of what only it can do wrong, begin with the same events and the same waiting.
//! The invariant: events are as a store would give them, and nothing waits for ever.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::{
    bus::{Bus, ConsumeError},
    context::{CommandContext, Metadata},
    envelope::Envelope,
    event::SchemaId,
    handler::{DeliverError, Subscription},
    timestamp::Timestamp,
    version::{Position, Version},
};

/// In which everything that is waited for must come true.
pub const LIMIT: Duration = Duration::from_secs(60);

/// An event of an aggregate, with everything that an envelope can carry.
#[must_use]
pub fn event(aggregate: &'static str, id: Uuid, version: u64) -> Arc<Envelope> {
    let context = CommandContext::new().for_tenant(Uuid::from_u128(9)).by("user:1");
    Arc::new(Envelope {
        event_id: Uuid::now_v7(),
        aggregate: Cow::Borrowed(aggregate),
        aggregate_id: id,
        version: Version::new(version),
        position: Position::new(version),
        event_name: Cow::Borrowed("Happened"),
        schema: SchemaId::new(7),
        payload: version.to_be_bytes().to_vec().into(),
        occurred_at: context.occurred_at,
        recorded_at: Timestamp::now(),
        metadata: Metadata::from(&context),
    })
}

/// Ids of so many aggregates.
#[must_use]
pub fn ids(count: usize) -> Vec<Uuid> {
    std::iter::repeat_with(Uuid::now_v7).take(count).collect()
}

/// Some versions of all these aggregates, as writers that take turns would append them.
pub fn events(aggregate: &'static str, ids: &[Uuid], versions: impl IntoIterator<Item = u64>) -> Vec<Arc<Envelope>> {
    versions.into_iter().flat_map(|version| ids.iter().map(move |id| event(aggregate, *id, version))).collect()
}

/// A consumer in a task; stops when dropped.
pub struct Consuming {
    stop: DropGuard,
    task: JoinHandle<Result<(), ConsumeError>>,
}

#[allow(clippy::panic, reason = "a test kit fails tests by panicking")]
impl Consuming {
    /// Starts one.
    pub fn start<B: Bus + ?Sized>(bus: &Arc<B>, subscription: Arc<dyn Subscription>) -> Self {
        let (bus, stop) = (Arc::clone(bus), CancellationToken::new());
        let token = stop.clone();
        let task = tokio::spawn(async move { bus.consume(subscription, token).await });
        Self { stop: stop.drop_guard(), task }
    }

    /// Stops it, and says how it ended.
    ///
    /// # Errors
    /// Its own.
    ///
    /// # Panics
    /// When it doesn't stop, or panics.
    pub async fn stop(self) -> Result<(), ConsumeError> {
        let Self { stop, task } = self;
        drop(stop);
        ended(task).await
    }

    /// Stops it, which it must do without an error.
    ///
    /// # Panics
    /// When it doesn't.
    pub async fn stopped(self) {
        if let Err(error) = self.stop().await {
            panic!("the consumer didn't stop as it should: {error}");
        }
    }

    /// Waits until it ends by itself, and says how.
    ///
    /// # Errors
    /// Its own.
    ///
    /// # Panics
    /// When it doesn't end, or panics.
    pub async fn end(self) -> Result<(), ConsumeError> {
        let Self { stop: _stop, task } = self;
        ended(task).await
    }
}

#[allow(clippy::panic, reason = "a test kit fails tests by panicking")]
async fn ended(task: JoinHandle<Result<(), ConsumeError>>) -> Result<(), ConsumeError> {
    match tokio::time::timeout(LIMIT, task).await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => panic!("the consumer's task failed: {error}"),
        Err(_) => panic!("the consumer didn't end"),
    }
}

/// An answer of a gate that wants the batch again.
#[must_use]
pub fn not_now() -> DeliverError {
    DeliverError { subscription: "test".to_owned(), detail: "not now".to_owned() }
}

/// Polls for what tells nobody when it comes true.
///
/// # Panics
/// When it doesn't in time.
pub async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
