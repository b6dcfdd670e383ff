//! The polling thread of a consumer.
//!
//! librdkafka must be polled regularly, or the group revokes this consumer's partitions. Handlers are asynchronous and may be slow.
//! Therefore one thread polls and hands records to the partitions' tasks without waiting for them. It waits only when partitions are
//! revoked or the consumer stops, and at most for the drain timeout.
//!
//! Assigning, queueing, pausing, committing and revoking all happen on this thread, in the order of librdkafka's callbacks.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use epoch::handler::Subscription;
use epoch_registry::Framing;
use rdkafka::{
    ClientContext, Message, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance},
    error::{KafkaError, KafkaResult},
    message::BorrowedMessage,
};
use tokio::{runtime::Handle, sync::oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    assigned_partition::{AssignedPartition, partition_list, take_commits},
    client_log::{ClientLog, count_lost_tail},
    config::KafkaConfig,
    error::Error,
    health::ConsumerHealth,
    lock::lock,
    partition_task::PolledRecord,
    progress::UNKNOWN,
    record::read_event,
};

/// The time limit of a poll, and the delay until a stop request is noticed.
const POLL: Duration = Duration::from_millis(100);
/// The time limit of a poll while a partition is paused, and the delay until it is resumed.
const POLL_PAUSED: Duration = Duration::from_millis(10);
/// The interval of commits, task checks and metrics.
const TICK: Duration = Duration::from_millis(200);

/// The state of the polling thread, shared with librdkafka's callbacks, which run on the same thread.
pub(crate) struct PollContext {
    log: ClientLog,
    subscription: Arc<dyn Subscription>,
    framing: Option<Arc<Framing>>,
    runtime: Handle,
    drain_timeout: Duration,
    assigned: Mutex<Vec<AssignedPartition>>,
}

/// A running consumer thread.
pub(crate) struct ConsumerThread {
    /// Receives the result once all tasks have ended and the last commit is sent.
    pub(crate) ended: oneshot::Receiver<Result<(), Error>>,
    /// Closes when the consumer has left its group. While the broker is down, librdkafka may never do so (librdkafka#3740).
    pub(crate) left: oneshot::Receiver<Infallible>,
}

/// Starts a consumer on its own thread.
pub(crate) fn start(
    config: &KafkaConfig,
    subscription: Arc<dyn Subscription>,
    framing: Option<Arc<Framing>>,
    topics: &[String],
    stop: CancellationToken,
    health: Arc<ConsumerHealth>,
) -> Result<ConsumerThread, Error> {
    let context = PollContext {
        log: ClientLog { client: subscription.name().to_owned() },
        runtime: Handle::try_current().map_err(|error| Error::Thread { detail: error.to_string() })?,
        drain_timeout: config.drain_timeout,
        assigned: Mutex::default(),
        subscription,
        framing,
    };
    let name = context.log.client.clone();
    let consumer: BaseConsumer<PollContext> =
        config.consumer(&name).create_with_context(context).map_err(|source| Error::Settings { source })?;
    let list: Vec<_> = topics.iter().map(String::as_str).collect();
    consumer.subscribe(&list).map_err(|source| Error::Subscribe { topics: topics.to_vec(), source })?;
    let ((done, ended), (leaving, left)) = (oneshot::channel(), oneshot::channel());
    thread::Builder::new()
        .name(name)
        .spawn(move || {
            let result = poll(&consumer, &stop, &health);
            consumer.context().release(&consumer, |_| true);
            // The receiver is gone when the caller was cancelled.
            let _ = done.send(result);
            // Waits for the last commit, then leaves the group.
            drop(consumer);
            drop(leaving);
        })
        .map_err(|error| Error::Thread { detail: error.to_string() })?;
    Ok(ConsumerThread { ended, left })
}

fn poll(consumer: &BaseConsumer<PollContext>, stop: &CancellationToken, health: &ConsumerHealth) -> Result<(), Error> {
    let context = consumer.context();
    let mut ticked = Instant::now();
    let mut limit = POLL;
    while !stop.is_cancelled() {
        match consumer.poll(limit) {
            None => {}
            Some(Ok(record)) => context.enqueue(&record)?,
            Some(Err(source @ KafkaError::MessageConsumptionFatal(_))) => return Err(Error::Fatal { source }),
            // A temporary error, already logged by `ClientLog::error`.
            Some(Err(error)) => tracing::debug!(subscription = context.name(), %error, "poll failed"),
        }
        limit = context.apply_backpressure(consumer)?;
        if ticked.elapsed() >= TICK {
            ticked = Instant::now();
            health.record_poll(context.tick(consumer, health.stuck_after)?);
        }
    }
    Ok(())
}

impl PollContext {
    fn name(&self) -> &str {
        &self.log.client
    }

    /// Queues a polled record for its partition's task.
    fn enqueue(&self, record: &BorrowedMessage<'_>) -> Result<(), Error> {
        let (topic, partition, offset) = (record.topic(), record.partition(), record.offset());
        let mut assigned = lock(&self.assigned);
        let Some(assigned) = assigned.iter_mut().find(|assigned| assigned.is(topic, partition)) else {
            tracing::debug!(subscription = self.name(), topic, partition, offset, "partition is not assigned any more");
            return Ok(());
        };
        let event = match read_event(record, self.framing.is_some()) {
            Ok(event) => Some(event),
            Err(reason) => {
                tracing::error!(
                    subscription = self.name(),
                    topic,
                    partition,
                    offset,
                    reason,
                    "record is not an event; skipped"
                );
                metrics::counter!("epoch_unreadable_total", "subscription" => self.name().to_owned(), "topic" => topic.to_owned())
                    .increment(1);
                None
            }
        };
        if assigned.has_polled(offset) {
            let name = self.name();
            tracing::error!(subscription = name, topic, partition, offset, "broker lost the end of a topic");
            count_lost_tail(name);
        }
        assigned.enqueue(PolledRecord { offset, event })
    }

    /// Fills the queues, pauses and resumes partitions, and returns the time limit of the next poll.
    fn apply_backpressure(&self, consumer: &BaseConsumer<Self>) -> Result<Duration, Error> {
        let mut all = lock(&self.assigned);
        for assigned in all.iter_mut() {
            assigned.fill_queue()?;
            let Some(pause) = assigned.pause_change() else { continue };
            let partition = partition_list([&*assigned]);
            let done = if pause { consumer.pause(&partition) } else { consumer.resume(&partition) };
            match done {
                Ok(()) => assigned.set_paused(pause),
                Err(error) => {
                    let (topic, partition) = (&*assigned.topic, assigned.partition);
                    tracing::warn!(topic, partition, pause, %error, "pause or resume failed");
                }
            }
        }
        Ok(if all.iter().any(AssignedPartition::is_paused) { POLL_PAUSED } else { POLL })
    }

    /// Commits offsets, updates metrics, and describes a stuck partition if there is one.
    fn tick(&self, consumer: &BaseConsumer<Self>, stuck_after: Duration) -> Result<Option<String>, Error> {
        let mut all = lock(&self.assigned);
        all.iter().try_for_each(AssignedPartition::check)?;
        let unfinished: i64 = all.iter().map(AssignedPartition::unfinished).sum();
        metrics::gauge!("epoch_bus_unfinished_events", "subscription" => self.name().to_owned())
            .set(gauge_value(unfinished));
        self.commit(consumer, all.iter_mut());
        let stuck = all.iter().find(|assigned| assigned.stuck_for() > stuck_after);
        Ok(stuck.map(|assigned| {
            let (topic, partition, offset) = (&assigned.topic, assigned.partition, assigned.position());
            format!("topic {topic}, partition {partition} is stuck at offset {offset} for {:?}", assigned.stuck_for())
        }))
    }

    fn commit<'a>(
        &self,
        consumer: &BaseConsumer<Self>,
        partitions: impl IntoIterator<Item = &'a mut AssignedPartition>,
    ) {
        let result = take_commits(partitions).and_then(|offsets| {
            if offsets.count() == 0 { Ok(()) } else { consumer.commit(&offsets, CommitMode::Async) }
        });
        if let Err(error) = result {
            tracing::debug!(subscription = self.name(), %error, "offset commit failed");
        }
    }

    /// Stops the tasks of the selected partitions, commits their positions, and removes them.
    fn release(&self, consumer: &BaseConsumer<Self>, select: impl Fn(&AssignedPartition) -> bool) {
        let mut released: Vec<_> = lock(&self.assigned).extract_if(.., |assigned| select(assigned)).collect();
        released.iter().for_each(AssignedPartition::stop);
        let deadline = Instant::now() + self.drain_timeout;
        for assigned in &released {
            assigned.join(deadline);
            self.lag(&assigned.topic, assigned.partition).set(0);
        }
        self.commit(consumer, &mut released);
        // librdkafka keeps the pause for a later assignment of the same partition.
        if let Err(error) = consumer.resume(&partition_list(released.iter().filter(|assigned| assigned.is_paused()))) {
            tracing::warn!(subscription = self.name(), %error, "resume failed");
        }
    }

    fn record_rebalance(&self, kind: &'static str, partitions: &TopicPartitionList) {
        let elements = partitions.elements();
        let list: Vec<_> = elements.iter().map(|element| (element.topic(), element.partition())).collect();
        tracing::info!(subscription = self.name(), kind, partitions = ?list, "rebalance");
        metrics::counter!("epoch_bus_rebalances_total", "subscription" => self.name().to_owned(), "kind" => kind)
            .increment(1);
    }

    fn lag(&self, topic: &str, partition: i32) -> metrics::Gauge {
        metrics::gauge!(
            "epoch_bus_lag_events",
            "subscription" => self.name().to_owned(), "topic" => topic.to_owned(), "partition" => partition.to_string(),
        )
    }
}

impl ClientContext for PollContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.log.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.log.error(error, reason);
    }

    /// Updates the lag from the last stable offset in librdkafka's statistics.
    fn stats(&self, statistics: Statistics) {
        for assigned in lock(&self.assigned).iter() {
            let topic = statistics.topics.get(&*assigned.topic);
            let Some(known) = topic.and_then(|topic| topic.partitions.get(&assigned.partition)) else { continue };
            // After the broker lost the end of the topic, the committed offset may be past the end; the lag is then negative.
            let position = if assigned.position() == UNKNOWN { known.committed_offset } else { assigned.position() };
            let position = position.max(known.lo_offset).max(0);
            self.lag(&assigned.topic, assigned.partition).set(gauge_value(known.ls_offset - position));
        }
    }
}

impl ConsumerContext for PollContext {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                self.record_rebalance("assign", partitions);
                let mut assigned = lock(&self.assigned);
                for element in partitions.elements() {
                    let (topic, partition) = (element.topic(), element.partition());
                    assigned.push(AssignedPartition::start(
                        &self.subscription,
                        &self.framing,
                        &self.runtime,
                        topic,
                        partition,
                    ));
                }
            }
            Rebalance::Revoke(partitions) => {
                self.record_rebalance("revoke", partitions);
                self.release(consumer, |assigned| {
                    partitions.find_partition(&assigned.topic, assigned.partition).is_some()
                });
            }
            Rebalance::Error(error) => {
                tracing::warn!(subscription = self.name(), %error, "rebalance failed");
                self.release(consumer, |_| true);
            }
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let Err(error) = result else { return };
        tracing::debug!(subscription = self.name(), %error, "offset commit failed; retrying");
        for assigned in lock(&self.assigned).iter_mut() {
            if offsets.find_partition(&assigned.topic, assigned.partition).is_some() {
                assigned.commit_failed();
            }
        }
    }
}

/// Converts a number of events for a gauge.
fn gauge_value(events: i64) -> u32 {
    u32::try_from(events.max(0)).unwrap_or(u32::MAX)
}
