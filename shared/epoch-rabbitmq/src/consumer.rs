//! Consuming.
//!
//! The problem: connections break and brokers restart; a subscription must go on by itself, and must not hammer a broker that
//! has just come up.
//!
//! The invariant: one connection at a time, with one task for each stream; when one of them fails, all end, and a new
//! connection begins after a wait that doubles up to a limit. Only what no waiting mends ends it.

use std::{
    sync::{Arc, atomic::AtomicU32},
    time::{Duration, Instant},
};

use epoch::{handler::Subscription, retry::RetryPolicy};
use epoch_registry::Framing;
use lapin::Connection;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    config::RabbitConfig,
    connection::{connect, short, within},
    error::{Error, chain},
    stream_task::Partition,
    topic,
};

/// Waits between connections.
const RECONNECT: RetryPolicy =
    RetryPolicy { attempts: u32::MAX, first: Duration::from_millis(200), limit: Duration::from_secs(5) };
/// A connection that held this long was a good one: waits begin anew.
const GOOD: Duration = Duration::from_secs(30);

/// Consumes until told to stop, over as many connections as it takes.
pub(crate) async fn consume(
    config: &RabbitConfig,
    framing: &Option<Arc<Framing>>,
    subscription: &Arc<dyn Subscription>,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let mut failed = 0;
    loop {
        let start = Instant::now();
        let error = match session(config, framing, subscription, stop).await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_fatal() => return Err(error),
            Err(error) => error,
        };
        failed = if start.elapsed() > GOOD { 1 } else { failed + 1 };
        let name = subscription.name();
        tracing::warn!(subscription = name, error = chain(&error), failed, "connects again");
        metrics::counter!("epoch_bus_reconnects_total", "subscription" => name.to_owned()).increment(1);
        if stop.run_until_cancelled(tokio::time::sleep(RECONNECT.wait(failed))).await.is_none() {
            return Ok(());
        }
    }
}

/// Consumes on one connection; `Ok` when told to stop.
async fn session(
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
    let started = start(config, framing, subscription, &connection, &stop, &mut tasks).await;
    let result = match started {
        Ok(()) => wait(&mut tasks, &stop).await,
        Err(error) => Err(error),
    };
    stop.cancel();
    let drained = tokio::time::timeout(config.drain_timeout, drain(&mut tasks)).await;
    if drained.is_err() {
        tracing::error!(group, tasks = tasks.len(), "batches in hand were aborted");
        tasks.shutdown().await;
    }
    // It may be broken; then the broker knows as well.
    let _ = within(config.timeout, "closing the connection", connection.close(200, short("")?)).await;
    match (result, drained) {
        (Ok(()), Ok(Err(error))) => Err(error),
        (result, _) => result,
    }
}

async fn start(
    config: &RabbitConfig,
    framing: &Option<Arc<Framing>>,
    subscription: &Arc<dyn Subscription>,
    connection: &Arc<Connection>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<Result<(), Error>>,
) -> Result<(), Error> {
    for &aggregate in subscription.aggregates() {
        let topic = topic::ensure(config, connection, &config.topic(aggregate)).await?;
        let reads = Arc::new(AtomicU32::new(0));
        for partition in topic.partitions() {
            let task = Partition {
                config: config.clone(),
                connection: Arc::clone(connection),
                subscription: Arc::clone(subscription),
                framing: framing.clone(),
                aggregate,
                topic: topic.clone(),
                partition,
                reads: Arc::clone(&reads),
                stop: stop.clone(),
            };
            tasks.spawn(task.run());
        }
    }
    Ok(())
}

/// Waits until told to stop or until a task fails.
async fn wait(tasks: &mut JoinSet<Result<(), Error>>, stop: &CancellationToken) -> Result<(), Error> {
    while let Some(ended) = stop.run_until_cancelled(tasks.join_next()).await.flatten() {
        ended.unwrap_or_else(died)?;
    }
    Ok(())
}

/// Waits for all; gives the first error that waiting doesn't mend.
async fn drain(tasks: &mut JoinSet<Result<(), Error>>) -> Result<(), Error> {
    let mut result = Ok(());
    while let Some(ended) = tasks.join_next().await {
        match ended.unwrap_or_else(died) {
            Err(error) if error.is_fatal() => result = Err(error),
            Err(error) => tracing::debug!(error = chain(&error), "a stream was left as it was"),
            Ok(()) => {}
        }
    }
    result
}

fn died(error: JoinError) -> Result<(), Error> {
    if error.is_cancelled() { Ok(()) } else { Err(Error::Died { detail: error.to_string() }) }
}
