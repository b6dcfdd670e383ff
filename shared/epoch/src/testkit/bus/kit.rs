//! Events, consumer tasks and waiting, for the suite and for the tests of each bus.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::{
    aggregate::context::CommandContext,
    delivery::{
        bus::{Bus, ConsumeError},
        handler::{DeliverError, Subscription},
    },
    event::{
        Metadata, SchemaId,
        envelope::Envelope,
        version::{Position, Version},
    },
    time::timestamp::Timestamp,
};

/// The timeout of each wait.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Returns an event with a tenant, an actor and a payload that contains its version.
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

/// Returns `count` new aggregate ids.
#[must_use]
pub fn ids(count: usize) -> Vec<Uuid> {
    std::iter::repeat_with(Uuid::now_v7).take(count).collect()
}

/// Returns events of all these aggregates, interleaved by version.
pub fn events(aggregate: &'static str, ids: &[Uuid], versions: impl IntoIterator<Item = u64>) -> Vec<Arc<Envelope>> {
    versions.into_iter().flat_map(|version| ids.iter().map(move |id| event(aggregate, *id, version))).collect()
}

/// A consumer in a task of its own. Stops when dropped.
pub struct ConsumerTask {
    stop: DropGuard,
    task: JoinHandle<Result<(), ConsumeError>>,
}

#[allow(clippy::panic, reason = "a test kit fails tests by panicking")]
impl ConsumerTask {
    /// Starts consuming.
    pub fn start<B: Bus + ?Sized>(bus: &Arc<B>, subscription: Arc<dyn Subscription>) -> Self {
        let (bus, stop) = (Arc::clone(bus), CancellationToken::new());
        let token = stop.clone();
        let task = tokio::spawn(async move { bus.consume(subscription, token).await });
        Self { stop: stop.drop_guard(), task }
    }

    /// Stops the consumer and returns its result.
    ///
    /// # Errors
    /// The consumer's error.
    ///
    /// # Panics
    /// When the consumer panics or does not stop within [`LIMIT`].
    pub async fn stop(self) -> Result<(), ConsumeError> {
        let Self { stop, task } = self;
        drop(stop);
        ended(task).await
    }

    /// Stops the consumer and asserts success.
    ///
    /// # Panics
    /// When the consumer fails, panics or does not stop within [`LIMIT`].
    pub async fn stopped(self) {
        if let Err(error) = self.stop().await {
            panic!("the consumer failed while stopping: {error}");
        }
    }

    /// Waits until the consumer ends without being stopped, and returns its result.
    ///
    /// # Errors
    /// The consumer's error.
    ///
    /// # Panics
    /// When the consumer panics or does not end within [`LIMIT`].
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
        Err(_) => panic!("the consumer did not end"),
    }
}

/// Returns an error that requests redelivery of the batch.
#[must_use]
pub fn retry_later() -> DeliverError {
    DeliverError { subscription: "test".to_owned(), detail: "retry later".to_owned() }
}

/// Polls `condition` every 10 ms until it is true.
///
/// # Panics
/// When it is not true within [`LIMIT`].
pub async fn wait_until(description: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "timed out: {description}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
