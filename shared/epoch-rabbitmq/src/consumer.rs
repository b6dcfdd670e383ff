//! The consumer of a subscription.
//!
//! A consumer has one connection and one task for each stream. When a task fails, all tasks end and the consumer connects again,
//! after a delay that doubles up to a limit so that it does not overload a broker that has just started. Only a permanent error ends
//! the consumer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use epoch::{error_chain, handler::Subscription, retry::RetryPolicy};
use epoch_registry::{EventDelivery, Framing};
use lapin::Connection;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    active_streams::ActiveStreams,
    config::RabbitConfig,
    connection::{connect, short_string, with_timeout},
    error::Error,
    stream_task::StreamTask,
    topic,
};

/// The delays between connections.
const RECONNECT: RetryPolicy =
    RetryPolicy { attempts: u32::MAX, first: Duration::from_millis(200), limit: Duration::from_secs(5) };
/// A connection that lasted this long resets the delay.
const STABLE: Duration = Duration::from_secs(30);

/// Consumes until it is stopped, and connects again after each temporary error.
pub(crate) async fn consume(
    config: &RabbitConfig,
    framing: &Option<Arc<Framing>>,
    subscription: &Arc<dyn Subscription>,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let mut failed = 0;
    loop {
        let start = Instant::now();
        let error = match run_connection(config, framing, subscription, stop).await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_fatal() => return Err(error),
            Err(error) => error,
        };
        failed = if start.elapsed() > STABLE { 1 } else { failed + 1 };
        let name = subscription.name();
        tracing::warn!(subscription = name, error = error_chain(&error), failed, "connection failed; reconnecting");
        metrics::counter!("epoch_bus_reconnects_total", "subscription" => name.to_owned()).increment(1);
        if stop.run_until_cancelled(tokio::time::sleep(RECONNECT.wait(failed))).await.is_none() {
            return Ok(());
        }
    }
}

/// Consumes on one connection. Returns `Ok` when stopped.
async fn run_connection(
    config: &RabbitConfig,
    framing: &Option<Arc<Framing>>,
    subscription: &Arc<dyn Subscription>,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let group = config.group(subscription.name());
    let Some(connection) = stop.run_until_cancelled(connect(config, &group)).await else { return Ok(()) };
    let connection = Arc::new(connection?);
    let stop = stop.child_token();
    let mut tasks = JoinSet::new();
    let started = start_tasks(config, framing, subscription, &connection, &stop, &mut tasks).await;
    let result = match started {
        Ok(()) => wait_for_failure(&mut tasks, &stop).await,
        Err(error) => Err(error),
    };
    stop.cancel();
    let drained = tokio::time::timeout(config.drain_timeout, drain(&mut tasks)).await;
    if drained.is_err() {
        tracing::error!(group, tasks = tasks.len(), "batches aborted after the drain timeout");
        tasks.shutdown().await;
    }
    // The error is ignored: a broken connection needs no closing.
    let _ = with_timeout(config.timeout, "closing the connection", connection.close(200, short_string("")?)).await;
    match (result, drained) {
        (Ok(()), Ok(Err(error))) => Err(error),
        (result, _) => result,
    }
}

async fn start_tasks(
    config: &RabbitConfig,
    framing: &Option<Arc<Framing>>,
    subscription: &Arc<dyn Subscription>,
    connection: &Arc<Connection>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<Result<(), Error>>,
) -> Result<(), Error> {
    for &aggregate in subscription.aggregates() {
        let topic = topic::ensure(config, connection, &config.topic(aggregate)).await?;
        let active_streams = ActiveStreams::default();
        for partition in topic.partitions() {
            let task = StreamTask {
                config: config.clone(),
                connection: Arc::clone(connection),
                delivery: EventDelivery {
                    subscription: Arc::clone(subscription),
                    framing: framing.clone(),
                    stop: stop.clone(),
                },
                aggregate,
                topic: topic.clone(),
                partition,
                active_streams: Arc::clone(&active_streams),
            };
            tasks.spawn(task.run());
        }
    }
    Ok(())
}

/// Waits until a task fails or the consumer is stopped.
async fn wait_for_failure(tasks: &mut JoinSet<Result<(), Error>>, stop: &CancellationToken) -> Result<(), Error> {
    while let Some(ended) = stop.run_until_cancelled(tasks.join_next()).await.flatten() {
        ended.unwrap_or_else(task_ended)?;
    }
    Ok(())
}

/// Waits for all tasks. Returns a permanent error if there was one.
async fn drain(tasks: &mut JoinSet<Result<(), Error>>) -> Result<(), Error> {
    let mut result = Ok(());
    while let Some(ended) = tasks.join_next().await {
        match ended.unwrap_or_else(task_ended) {
            Err(error) if error.is_fatal() => result = Err(error),
            Err(error) => tracing::debug!(error = error_chain(&error), "task ended with a temporary error"),
            Ok(()) => {}
        }
    }
    result
}

fn task_ended(error: JoinError) -> Result<(), Error> {
    if error.is_cancelled() { Ok(()) } else { Err(Error::TaskEnded { detail: error.to_string() }) }
}
