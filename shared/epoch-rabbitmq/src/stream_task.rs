//! The task that reads one stream of a topic.
//!
//! Each stream has its own task, so a slow stream does not delay the others. The task delivers one batch after the other, in offset
//! order. Its position never passes an event that the subscription has not accepted. The broker sends at most [`PREFETCH`] messages
//! ahead of the acknowledged ones, which bounds the memory. When stopped, the task finishes the batch in progress and ends.
//!
//! The processes of a group share the streams of a topic: a process that reads more than its share releases streams.

use std::{sync::Arc, time::Duration};

use epoch::message::ReceivedEvent;
use epoch_registry::{ConsumedEvent, EventDelivery};
use futures::{FutureExt, StreamExt};
use lapin::{
    Channel, Connection, Consumer,
    message::Delivery,
    options::{BasicAckOptions, QueueDeclareOptions},
    types::FieldTable,
};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::Instrument;

use crate::{
    active_streams::{ActiveStream, ActiveStreams},
    config::RabbitConfig,
    connection::{open_channel, short_string, with_timeout},
    error::Error,
    lease::Lease,
    message,
    topic::{self, Topic},
};

/// The maximum number of unacknowledged messages from the broker.
pub(crate) const PREFETCH: u16 = 1_000;
/// The maximum number of messages in a batch.
const BATCH: usize = 500;
/// The interval of storing the position, updating the lag and balancing the streams.
const TICK: Duration = Duration::from_secs(1);

/// Reads one stream whenever this process holds its lease.
pub(crate) struct StreamTask {
    pub(crate) config: RabbitConfig,
    pub(crate) connection: Arc<Connection>,
    pub(crate) delivery: EventDelivery,
    /// The aggregate whose events the topic holds.
    pub(crate) aggregate: &'static str,
    pub(crate) topic: Topic,
    pub(crate) partition: u16,
    pub(crate) active_streams: ActiveStreams,
}

impl StreamTask {
    /// Waits for the lease and reads the stream, in turns with other processes, until it is stopped.
    pub(crate) async fn run(self) -> Result<(), Error> {
        let (group, stream) = (self.config.group(self.subscription()), self.topic.stream(self.partition));
        let stop = &self.delivery.stop;
        while !stop.is_cancelled() {
            let lease = Lease::acquire(&self.config, &self.connection, &group, &stream, stop).await?;
            let Some(lease) = lease else { return Ok(()) };
            tracing::info!(group, stream, offset = lease.position(), "stream lease acquired");
            let (lease, position) = self.read(lease, &stream).await?;
            tracing::info!(group, stream, offset = position, "stream lease released");
            lease.release(position).await?;
        }
        Ok(())
    }

    fn subscription(&self) -> &str {
        self.delivery.subscription.name()
    }

    /// Reads until the task is stopped or yields the stream. Returns the offset of the next event.
    async fn read(&self, mut lease: Lease, stream: &str) -> Result<(Lease, u64), Error> {
        let mut active = ActiveStream::new(&self.active_streams);
        let mut position = lease.position();
        let (channel, mut messages) = self.consume(stream, position).await?;
        let mut tick = interval_at(Instant::now() + TICK, TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.delivery.stop.cancelled() => break,
                received = lease.receive_position() => received?,
                _ = tick.tick() => {
                    lease.advance(position).await?;
                    self.update_lag(&channel, stream, position).await?;
                    if active.yields(self.share(lease.count_consumers().await?)) {
                        break;
                    }
                }
                first = messages.next() => {
                    let mut batch = vec![received(first, stream)?];
                    while batch.len() < BATCH && let Some(more) = messages.next().now_or_never() {
                        batch.push(received(more, stream)?);
                    }
                    match self.deliver(stream, batch).await? {
                        Some(next) => position = next,
                        None => break,
                    }
                }
            }
        }
        self.lag().set(0);
        let closing = channel.close(200, short_string("")?);
        with_timeout(self.config.timeout, "closing a channel", closing).await?;
        Ok((lease, position))
    }

    async fn consume(&self, stream: &str, position: u64) -> Result<(Channel, Consumer), Error> {
        let channel = open_channel(&self.config, &self.connection).await?;
        let messages = topic::read_from(&self.config, &channel, stream, position, PREFETCH).await?;
        Ok((channel, messages))
    }

    /// Delivers a batch and acknowledges it. Returns the next offset, or `None` if it was stopped before.
    async fn deliver(&self, stream: &str, batch: Vec<Delivery>) -> Result<Option<u64>, Error> {
        let Some(last) = batch.last() else { return Ok(None) };
        let Some(offset) = message::offset(last) else { return Err(Error::NotAStream { stream: stream.to_owned() }) };
        let last_acker = last.acker.clone();
        let span = tracing::debug_span!("deliver", subscription = self.subscription(), stream, last_offset = offset);
        let events = batch.into_iter().filter_map(|message| self.read_event(stream, message));
        if !self.delivery.deliver(events, &()).instrument(span).await {
            return Ok(None);
        }
        let acknowledging = last_acker.ack(BasicAckOptions { multiple: true });
        with_timeout(self.config.timeout, "acknowledging a batch", acknowledging).await?;
        Ok(Some(offset + 1))
    }

    /// Returns the event in a message, and counts a message that is not an event.
    fn read_event(&self, stream: &str, message: Delivery) -> Option<ConsumedEvent> {
        let offset = message::offset(&message);
        let reason = match message::read(message, self.delivery.framing.is_some()) {
            Ok(event) if event.aggregate() == self.aggregate => return Some(consumed(offset, event)),
            Ok(event) => format!("event belongs to aggregate {}", event.aggregate()),
            Err(error) => error.to_string(),
        };
        let name = self.subscription();
        tracing::error!(subscription = name, stream, offset, reason, "message is not an event; skipped");
        metrics::counter!("epoch_unreadable_total", "subscription" => name.to_owned(), "topic" => self.topic.name.clone())
            .increment(1);
        None
    }

    /// Returns the number of streams that this process should read, for this number of consumers.
    fn share(&self, consumers: u32) -> u32 {
        let streams = u32::try_from(self.topic.partitions().len()).unwrap_or(u32::MAX);
        streams.div_ceil(consumers.max(1))
    }

    async fn update_lag(&self, channel: &Channel, stream: &str, position: u64) -> Result<(), Error> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declaring = channel.queue_declare(short_string(stream)?, options, FieldTable::default());
        let messages = with_timeout(self.config.timeout, "reading the lag", declaring).await?.message_count();
        self.lag().set(u32::try_from(u64::from(messages).saturating_sub(position)).unwrap_or(u32::MAX));
        Ok(())
    }

    fn lag(&self) -> metrics::Gauge {
        metrics::gauge!(
            "epoch_bus_lag_events",
            "subscription" => self.subscription().to_owned(), "topic" => self.topic.name.clone(),
            "partition" => self.partition.to_string(),
        )
    }
}

/// The offset serves only for logs here, so an offset that is missing becomes -1.
fn consumed(offset: Option<u64>, event: ReceivedEvent) -> ConsumedEvent {
    ConsumedEvent { offset: offset.and_then(|offset| i64::try_from(offset).ok()).unwrap_or(-1), event }
}

fn received(message: Option<Result<Delivery, lapin::Error>>, stream: &str) -> Result<Delivery, Error> {
    let message = message.ok_or_else(|| Error::Cancelled { queue: stream.to_owned() })?;
    message.map_err(Error::broker(format!("consuming {stream}")))
}
