//! Consuming.
//!
//! The problem: librdkafka must be polled from one place, always and soon, or the group takes our partitions away; handlers are
//! asynchronous and take as long as they take.
//!
//! The invariant: one thread polls and never waits for a handler, except, for a bounded time, when a partition is taken from
//! it. Everything that happens to partitions (assigning, handing over, pausing, committing, revoking) happens on that thread, in
//! the order in which librdkafka says it.

use std::{
    convert::Infallible,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use epoch::{
    handler::Subscription,
    message::{Message as EpochMessage, MessageError, Received},
};
use epoch_registry::Framing;
use rdkafka::{
    ClientContext, Message, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance},
    error::{KafkaError, KafkaResult},
    message::{BorrowedMessage, Headers},
};
use tokio::{runtime::Handle, sync::oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    assigned_partition::{Held, commits, names},
    client_log::{Log, lost_tail},
    config::KafkaConfig,
    error::Error,
    health::{ConsumerHealth, lock},
    partition_task::{Item, UNKNOWN},
};

/// How long to poll when there is nothing: a request to stop is seen this soon.
const POLL: Duration = Duration::from_millis(100);
/// The same while a partition is paused: it is resumed this soon.
const POLL_PAUSED: Duration = Duration::from_millis(10);
/// How often to commit, to look after the tasks and to write metrics.
const TICK: Duration = Duration::from_millis(200);

/// What the polling thread and librdkafka's callbacks, which run on it, work on.
pub(crate) struct Context {
    log: Log,
    subscription: Arc<dyn Subscription>,
    framing: Option<Arc<Framing>>,
    runtime: Handle,
    drain_timeout: Duration,
    held: Mutex<Vec<Held>>,
}

/// A consumer on its own thread.
pub(crate) struct Consuming {
    /// The result, when its tasks have ended and their offsets are on their way.
    pub(crate) ended: oneshot::Receiver<Result<(), Error>>,
    /// Closed when it has left the group, which librdkafka may never do while the broker is away (librdkafka#3740).
    pub(crate) left: oneshot::Receiver<Infallible>,
}

/// Starts to consume on a thread of its own.
pub(crate) fn start(
    config: &KafkaConfig,
    subscription: Arc<dyn Subscription>,
    framing: Option<Arc<Framing>>,
    topics: &[String],
    stop: CancellationToken,
    health: Arc<ConsumerHealth>,
) -> Result<Consuming, Error> {
    let context = Context {
        log: Log { client: subscription.name().to_owned() },
        runtime: Handle::try_current().map_err(|error| Error::Thread { detail: error.to_string() })?,
        drain_timeout: config.drain_timeout,
        held: Mutex::default(),
        subscription,
        framing,
    };
    let name = context.log.client.clone();
    let consumer: BaseConsumer<Context> =
        config.consumer(&name).create_with_context(context).map_err(|source| Error::Settings { source })?;
    let list: Vec<_> = topics.iter().map(String::as_str).collect();
    consumer.subscribe(&list).map_err(|source| Error::Subscribe { topics: topics.to_vec(), source })?;
    let ((done, ended), (leaving, left)) = (oneshot::channel(), oneshot::channel());
    thread::Builder::new()
        .name(name)
        .spawn(move || {
            let result = poll(&consumer, &stop, &health);
            consumer.context().release(&consumer, |_| true);
            // Whoever asked may be gone.
            let _ = done.send(result);
            // Waits for the last commit and leaves the group.
            drop(consumer);
            drop(leaving);
        })
        .map_err(|error| Error::Thread { detail: error.to_string() })?;
    Ok(Consuming { ended, left })
}

fn poll(consumer: &BaseConsumer<Context>, stop: &CancellationToken, health: &ConsumerHealth) -> Result<(), Error> {
    let context = consumer.context();
    let mut ticked = Instant::now();
    let mut limit = POLL;
    while !stop.is_cancelled() {
        match consumer.poll(limit) {
            None => {}
            Some(Ok(message)) => context.accept(&message)?,
            Some(Err(source @ KafkaError::MessageConsumptionFatal(_))) => return Err(Error::Fatal { source }),
            // It passes, and was logged where librdkafka reported it.
            Some(Err(error)) => tracing::debug!(subscription = context.name(), %error, "poll failed"),
        }
        limit = context.hold_back(consumer)?;
        if ticked.elapsed() >= TICK {
            ticked = Instant::now();
            health.polled(context.tick(consumer, health.stuck_after)?);
        }
    }
    Ok(())
}

impl Context {
    fn name(&self) -> &str {
        &self.log.client
    }

    /// Takes a message that was polled.
    fn accept(&self, message: &BorrowedMessage<'_>) -> Result<(), Error> {
        let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
        let mut held = lock(&self.held);
        let Some(held) = held.iter_mut().find(|held| held.is(topic, partition)) else {
            tracing::debug!(subscription = self.name(), topic, partition, offset, "partition is not held any more");
            return Ok(());
        };
        let event = match event(message, self.framing.is_some()) {
            Ok(event) => Some(event),
            Err(reason) => {
                tracing::error!(
                    subscription = self.name(),
                    topic,
                    partition,
                    offset,
                    reason,
                    "not an event, passed over"
                );
                metrics::counter!("epoch_unreadable_total", "subscription" => self.name().to_owned(), "topic" => topic.to_owned())
                    .increment(1);
                None
            }
        };
        if held.has_passed(offset) {
            let name = self.name();
            tracing::error!(subscription = name, topic, partition, offset, "the broker has lost the end of a topic");
            lost_tail(name);
        }
        held.accept(Item { offset, event })
    }

    /// Hands over what was kept, pauses and resumes; says how long the next poll may take.
    fn hold_back(&self, consumer: &BaseConsumer<Self>) -> Result<Duration, Error> {
        let mut all = lock(&self.held);
        for held in all.iter_mut() {
            held.hand_over()?;
            let Some(pause) = held.wants() else { continue };
            let partition = names([&*held]);
            let done = if pause { consumer.pause(&partition) } else { consumer.resume(&partition) };
            match done {
                Ok(()) => held.set_paused(pause),
                Err(error) => {
                    let (topic, partition) = (&*held.topic, held.partition);
                    tracing::warn!(topic, partition, pause, %error, "not paused or resumed");
                }
            }
        }
        Ok(if all.iter().any(Held::is_paused) { POLL_PAUSED } else { POLL })
    }

    /// Commits, writes metrics, and names a partition that is stuck.
    fn tick(&self, consumer: &BaseConsumer<Self>, stuck_after: Duration) -> Result<Option<String>, Error> {
        let mut held = lock(&self.held);
        held.iter().try_for_each(Held::check)?;
        let unfinished: i64 = held.iter().map(Held::unfinished).sum();
        metrics::gauge!("epoch_bus_unfinished_events", "subscription" => self.name().to_owned()).set(count(unfinished));
        self.commit(consumer, held.iter_mut());
        let stuck = held.iter().find(|held| held.stuck_for() > stuck_after);
        Ok(stuck.map(|held| {
            let (topic, partition, offset) = (&held.topic, held.partition, held.position());
            format!("topic {topic}, partition {partition} is stuck at offset {offset} for {:?}", held.stuck_for())
        }))
    }

    fn commit<'a>(&self, consumer: &BaseConsumer<Self>, held: impl IntoIterator<Item = &'a mut Held>) {
        let result = commits(held).and_then(|offsets| {
            if offsets.count() == 0 { Ok(()) } else { consumer.commit(&offsets, CommitMode::Async) }
        });
        if let Err(error) = result {
            tracing::debug!(subscription = self.name(), %error, "offsets not committed");
        }
    }

    /// Lets the tasks of some partitions finish, commits where they are, and forgets them.
    fn release(&self, consumer: &BaseConsumer<Self>, which: impl Fn(&Held) -> bool) {
        let mut released: Vec<_> = lock(&self.held).extract_if(.., |held| which(held)).collect();
        released.iter().for_each(Held::stop);
        let deadline = Instant::now() + self.drain_timeout;
        for held in &released {
            held.join(deadline);
            self.lag(&held.topic, held.partition).set(0);
        }
        self.commit(consumer, &mut released);
        // librdkafka would remember the pause if the partition came back.
        if let Err(error) = consumer.resume(&names(released.iter().filter(|held| held.is_paused()))) {
            tracing::warn!(subscription = self.name(), %error, "not resumed");
        }
    }

    fn rebalanced(&self, kind: &'static str, partitions: &TopicPartitionList) {
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

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.log.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.log.error(error, reason);
    }

    /// The lag, from the last offset the broker told of.
    fn stats(&self, statistics: Statistics) {
        for held in lock(&self.held).iter() {
            let topic = statistics.topics.get(&*held.topic);
            let Some(known) = topic.and_then(|topic| topic.partitions.get(&held.partition)) else { continue };
            // What was committed may be beyond the end of a topic that has lost its tail.
            let position = if held.position() == UNKNOWN { known.committed_offset } else { held.position() };
            let position = position.max(known.lo_offset).max(0);
            self.lag(&held.topic, held.partition).set(count(known.ls_offset - position));
        }
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                self.rebalanced("assign", partitions);
                let mut held = lock(&self.held);
                for element in partitions.elements() {
                    let (topic, partition) = (element.topic(), element.partition());
                    held.push(Held::start(&self.subscription, &self.framing, &self.runtime, topic, partition));
                }
            }
            Rebalance::Revoke(partitions) => {
                self.rebalanced("revoke", partitions);
                self.release(consumer, |held| partitions.find_partition(&held.topic, held.partition).is_some());
            }
            Rebalance::Error(error) => {
                tracing::warn!(subscription = self.name(), %error, "rebalance failed");
                self.release(consumer, |_| true);
            }
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let Err(error) = result else { return };
        tracing::debug!(subscription = self.name(), %error, "offsets not committed, trying again");
        for held in lock(&self.held).iter_mut() {
            if offsets.find_partition(&held.topic, held.partition).is_some() {
                held.not_committed();
            }
        }
    }
}

/// A number of events for a gauge.
fn count(events: i64) -> u32 {
    u32::try_from(events.max(0)).unwrap_or(u32::MAX)
}

/// The event in a record, or why there is none.
fn event(message: &BorrowedMessage<'_>, registry: bool) -> Result<Received, String> {
    // rdkafka panics at a header whose name isn't UTF-8. Nobody's record may end the consumer, again and again.
    let event = panic::catch_unwind(AssertUnwindSafe(|| read(message, registry)))
        .map_err(|_| "a header's name is not UTF-8".to_owned())?
        .map_err(|error| error.to_string())?;
    if message.topic().rsplit('.').nth(1) == Some(event.aggregate()) {
        Ok(event)
    } else {
        Err(format!("it belongs to aggregate {}", event.aggregate()))
    }
}

fn read(message: &BorrowedMessage<'_>, registry: bool) -> Result<Received, MessageError> {
    let headers = message.headers().map(|headers| headers.iter().collect::<Vec<_>>()).unwrap_or_default();
    let header = |name: &str| {
        let found = headers.iter().find(|header| header.key == name)?;
        found.value.and_then(|value| std::str::from_utf8(value).ok())
    };
    let body = Bytes::copy_from_slice(message.payload().unwrap_or_default());
    // Without a registry to ask, the producer's own word about the schema counts.
    if registry { EpochMessage::receive(header, &body) } else { EpochMessage::read(header, &body).map(Received::from) }
}
