//! One stream's task.
//!
//! The problem: streams must not wait for each other, a batch that can't be delivered now must not be lost or overtaken, memory
//! must stay bounded, and the streams of a topic should be shared among the group's processes.
//!
//! The invariant: events go through the gate in offset order, one batch after the other; the recorded position never passes an
//! event that hasn't; an event whose schema only the registry can tell waits for it, and with it what comes behind; the broker sends no more than [`PREFETCH`] messages ahead of what was answered. Once told to stop, the task ends
//! after the batch in hand.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use epoch::{
    envelope::Envelope,
    event::SchemaId,
    gate::Way,
    handler::Subscription,
    message::{Frame, Received},
    retry::RetryPolicy,
    trace,
};
use epoch_registry::{Framing, RegistryError};
use futures::{FutureExt, StreamExt};
use lapin::{
    Channel, Connection, Consumer,
    message::Delivery,
    options::{BasicAckOptions, QueueDeclareOptions},
    types::FieldTable,
};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use crate::{
    config::RabbitConfig,
    connection::{channel, short, within},
    error::Error,
    lease::Lease,
    message,
    topic::{self, Topic},
};

/// How many messages the broker may send ahead.
pub(crate) const PREFETCH: u16 = 1_000;
/// How many go through the gate at once.
const BATCH: usize = 500;
/// How often to keep the position, to write metrics, and to look whether others wait for work.
const TICK: Duration = Duration::from_secs(1);

/// Reads one stream whenever it is this process's turn.
pub(crate) struct Partition {
    pub(crate) config: RabbitConfig,
    pub(crate) connection: Arc<Connection>,
    pub(crate) subscription: Arc<dyn Subscription>,
    pub(crate) framing: Option<Arc<Framing>>,
    /// The aggregate whose events belong here.
    pub(crate) aggregate: &'static str,
    pub(crate) topic: Topic,
    pub(crate) partition: u16,
    /// How many of the topic's streams this process reads.
    pub(crate) reads: Arc<AtomicU32>,
    pub(crate) stop: CancellationToken,
}

/// Counts one stream that is read.
struct Counted {
    reads: Arc<AtomicU32>,
    counted: bool,
}

impl Counted {
    fn new(reads: &Arc<AtomicU32>) -> Self {
        reads.fetch_add(1, Ordering::SeqCst);
        Self { reads: Arc::clone(reads), counted: true }
    }

    /// Whether this one is more than `share` and gives way: of several that ask at once, only as many as are too many.
    fn gives_way(&mut self, share: u32) -> bool {
        let one_less = |reads: u32| (reads > share).then(|| reads - 1);
        if self.counted && self.reads.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            self.counted = false;
        }
        !self.counted
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.counted {
            self.reads.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Partition {
    /// Waits for its turn, reads, and waits again when another's turn has come, until told to stop.
    pub(crate) async fn run(self) -> Result<(), Error> {
        let (group, stream) = (self.config.group(self.subscription.name()), self.topic.stream(self.partition));
        while !self.stop.is_cancelled() {
            let waiting = Lease::wait(&self.config, &self.connection, &group, &stream, &self.stop);
            let Some(lease) = waiting.await? else { return Ok(()) };
            tracing::info!(group, stream, offset = lease.position(), "reads the stream");
            let (lease, position) = self.read(lease, &stream).await?;
            tracing::info!(group, stream, offset = position, "gives the stream up");
            lease.release(position).await?;
        }
        Ok(())
    }

    /// Reads until told to stop or until the stream should be another's; gives the offset of the next event.
    async fn read(&self, mut lease: Lease, stream: &str) -> Result<(Lease, u64), Error> {
        let mut counted = Counted::new(&self.reads);
        let mut position = lease.position();
        let (channel, mut messages) = self.consume(stream, position).await?;
        let mut tick = interval_at(Instant::now() + TICK, TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                turned = lease.turn() => turned?,
                _ = tick.tick() => {
                    lease.advance(position).await?;
                    self.write_lag(&channel, stream, position).await?;
                    if counted.gives_way(self.share(lease.consumers().await?)) {
                        break;
                    }
                }
                first = messages.next() => {
                    let mut batch = vec![delivered(first, stream)?];
                    while batch.len() < BATCH && let Some(more) = messages.next().now_or_never() {
                        batch.push(delivered(more, stream)?);
                    }
                    match self.take(stream, batch).await? {
                        Some(next) => position = next,
                        None => break,
                    }
                }
            }
        }
        self.lag().set(0);
        within(self.config.timeout, "closing a channel", channel.close(200, short("")?)).await?;
        Ok((lease, position))
    }

    async fn consume(&self, stream: &str, position: u64) -> Result<(Channel, Consumer), Error> {
        let channel = channel(&self.config, &self.connection).await?;
        let messages = topic::read_from(&self.config, &channel, stream, position, PREFETCH).await?;
        Ok((channel, messages))
    }

    /// Brings a batch through the gate, then answers the broker; gives the next offset, `None` when told to stop before.
    async fn take(&self, stream: &str, mut batch: Vec<Delivery>) -> Result<Option<u64>, Error> {
        let Some(last) = batch.last() else { return Ok(None) };
        let Some(offset) = message::offset(last) else { return Err(Error::NotAStream { stream: stream.to_owned() }) };
        let span =
            tracing::debug_span!("deliver", subscription = self.subscription.name(), stream, last_offset = offset);
        if !self.bring(stream, &mut batch).instrument(span).await {
            return Ok(None);
        }
        if let Some(last) = batch.last() {
            let answering = last.ack(BasicAckOptions { multiple: true });
            within(self.config.timeout, "answering for a batch", answering).await?;
        }
        Ok(Some(offset + 1))
    }

    /// Brings the events of a batch through the gate; `false` when told to stop before all of them were.
    async fn bring(&self, stream: &str, batch: &mut [Delivery]) -> bool {
        let mut events = Vec::with_capacity(batch.len());
        for message in batch {
            let Some(received) = self.event(stream, message) else { continue };
            let schema = match self.known_schema(received.frame) {
                Ok(schema) => schema,
                Err(id) => {
                    // What came before it needn't wait for the registry.
                    if !self.deliver(&events).await {
                        return false;
                    }
                    events.clear();
                    let Some(schema) = self.look_up(id, stream).await else { return false };
                    schema
                }
            };
            events.push(Arc::new(received.with_schema(schema)));
        }
        self.deliver(&events).await
    }

    /// The schema that a frame names, or the number that has to be looked up.
    fn known_schema(&self, frame: Frame) -> Result<SchemaId, u32> {
        match (&self.framing, frame) {
            (Some(framing), frame) => framing.known(frame),
            (None, Frame::Fingerprint(schema)) => Ok(schema),
            (None, Frame::Registered(id)) => Err(id),
        }
    }

    /// Asks the registry until it answers; `None` when told to stop before it did.
    async fn look_up(&self, id: u32, stream: &str) -> Option<SchemaId> {
        let waits = |error: &RegistryError, failed| {
            tracing::error!(stream, id, %error, failed, "an event waits for its schema");
        };
        self.framing.as_ref()?.wait_for(id, self.subscription.name(), &self.stop, waits).await
    }

    /// The event in a message. What isn't one stays in the stream, where it can be looked at.
    fn event(&self, stream: &str, message: &mut Delivery) -> Option<Received> {
        let reason = match message::read(message, self.framing.is_some()) {
            Ok(event) if event.aggregate() == self.aggregate => return Some(event),
            Ok(event) => format!("it belongs to aggregate {}", event.aggregate()),
            Err(error) => error.to_string(),
        };
        let (name, offset) = (self.subscription.name(), message::offset(message));
        tracing::error!(subscription = name, stream, offset, reason, "not an event, passed over");
        metrics::counter!("epoch_unreadable_total", "subscription" => name.to_owned(), "topic" => self.topic.name.clone())
            .increment(1);
        None
    }

    /// Delivers until it succeeds; `false` when told to stop before it did.
    async fn deliver(&self, events: &[Arc<Envelope>]) -> bool {
        if events.is_empty() {
            return true;
        }
        let name = self.subscription.name();
        trace::link(&Span::current(), events);
        for failed in 1.. {
            match self.subscription.deliver(events, Way::Bus).await {
                Ok(delivered) => {
                    tracing::debug!(?delivered, "delivered");
                    metrics::counter!("epoch_bus_consumed_total", "subscription" => name.to_owned())
                        .increment(events.len() as u64);
                    return true;
                }
                Err(error) => {
                    tracing::warn!(%error, failed, "the batch will be delivered again");
                    metrics::counter!("epoch_bus_redelivered_total", "subscription" => name.to_owned()).increment(1);
                }
            }
            let waiting = tokio::time::sleep(RetryPolicy::HANDLER.wait(failed));
            if self.stop.run_until_cancelled(waiting).await.is_none() {
                break;
            }
        }
        false
    }

    /// How many of the topic's streams this process should read when there are so many consumers.
    fn share(&self, consumers: u32) -> u32 {
        let streams = u32::try_from(self.topic.partitions().len()).unwrap_or(u32::MAX);
        streams.div_ceil(consumers.max(1))
    }

    async fn write_lag(&self, channel: &Channel, stream: &str, position: u64) -> Result<(), Error> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asking = channel.queue_declare(short(stream)?, options, FieldTable::default());
        let messages = within(self.config.timeout, "asking for the lag", asking).await?.message_count();
        self.lag().set(u32::try_from(u64::from(messages).saturating_sub(position)).unwrap_or(u32::MAX));
        Ok(())
    }

    fn lag(&self) -> metrics::Gauge {
        metrics::gauge!(
            "epoch_bus_lag_events",
            "subscription" => self.subscription.name().to_owned(), "topic" => self.topic.name.clone(),
            "partition" => self.partition.to_string(),
        )
    }
}

fn delivered(message: Option<Result<Delivery, lapin::Error>>, stream: &str) -> Result<Delivery, Error> {
    let message = message.ok_or_else(|| Error::Cancelled { queue: stream.to_owned() })?;
    message.map_err(Error::broker(format!("consuming {stream}")))
}
