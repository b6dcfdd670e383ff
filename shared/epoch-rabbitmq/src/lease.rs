//! The lease of a stream: one reader per group, and the group's position.
//!
//! RabbitMQ streams have any number of readers and store no positions. A group needs one reader at a time, a successor when the
//! reader ends, and the position where the successor starts.
//!
//! For each stream, a group has a queue with a single active consumer. The queue holds the group's position as a message. The reader
//! is the process that has received this message and not acknowledged it. When the reader's channel ends for any reason, RabbitMQ
//! delivers the message to the next consumer.
//!
//! To advance, the reader publishes the new position and acknowledges the old one only after it has received the new one. The queue
//! therefore always holds at least one position. Of several positions the highest counts.

use std::time::Duration;

use futures::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::RabbitConfig,
    connection::{open_channel, short_string, with_timeout},
    error::Error,
};

/// The prefetch limit: the current position, its successor, and the initial positions of other processes that start.
const PREFETCH: u16 = 64;
/// The wait for further positions after the first one.
const FURTHER_POSITIONS: Duration = Duration::from_millis(20);

/// The right to read a stream for a group.
pub(crate) struct Lease {
    config: RabbitConfig,
    queue: String,
    channel: Channel,
    positions: Consumer,
    held: PositionMessage,
    /// The last published position.
    published: u64,
}

/// A position and its unacknowledged message.
struct PositionMessage {
    position: u64,
    message: Delivery,
}

impl Lease {
    /// Waits until this process is the reader. Returns `None` if it is stopped before.
    pub(crate) async fn acquire(
        config: &RabbitConfig,
        connection: &Connection,
        group: &str,
        stream: &str,
        stop: &CancellationToken,
    ) -> Result<Option<Self>, Error> {
        let queue = format!("{group}@{stream}");
        let channel = open_channel(config, connection).await?;
        let name = short_string(&queue)?;
        declare(config, &channel, &name).await?;
        let qos = channel.basic_qos(PREFETCH, BasicQosOptions::default());
        with_timeout(config.timeout, "setting the prefetch limit of positions", qos).await?;
        let consuming = channel.basic_consume(
            name.clone(),
            short_string("")?,
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let mut positions = with_timeout(config.timeout, &format!("consuming {queue}"), consuming).await?;
        // The first process of a group needs an initial position. It is discarded if the queue holds a higher one.
        publish(config, &channel, &name, 0).await?;
        let Some(first) = stop.run_until_cancelled(next_position(&mut positions, &queue)).await else {
            return Ok(None);
        };
        let (config, published) = (config.clone(), 0);
        let mut lease = Self { config, queue, channel, positions, held: first?, published };
        while let Ok(further) = tokio::time::timeout(FURTHER_POSITIONS, lease.receive_position()).await {
            further?;
        }
        Ok(Some(lease))
    }

    /// Returns the offset at which to start reading.
    pub(crate) fn position(&self) -> u64 {
        self.held.position
    }

    /// Receives the next position, keeps the higher one and acknowledges the lower one. Cancel-safe while it waits.
    pub(crate) async fn receive_position(&mut self) -> Result<(), Error> {
        let other = next_position(&mut self.positions, &self.queue).await?;
        let lower = if other.position < self.held.position { other } else { std::mem::replace(&mut self.held, other) };
        let acknowledging = lower.message.ack(BasicAckOptions::default());
        with_timeout(self.config.timeout, "acknowledging a position", acknowledging).await.map(drop)
    }

    /// Publishes a new position. [`receive_position`](Self::receive_position) then replaces the old one.
    pub(crate) async fn advance(&mut self, position: u64) -> Result<(), Error> {
        if position <= self.published.max(self.held.position) {
            return Ok(());
        }
        publish(&self.config, &self.channel, &short_string(&self.queue)?, position).await?;
        self.published = position;
        Ok(())
    }

    /// Returns the number of consumers that the group has for this stream.
    pub(crate) async fn count_consumers(&self) -> Result<u32, Error> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declaring = self.channel.queue_declare(short_string(&self.queue)?, options, FieldTable::default());
        Ok(with_timeout(self.config.timeout, "counting consumers", declaring).await?.consumer_count())
    }

    /// Stores `position` and leaves the stream to the next process.
    pub(crate) async fn release(mut self, position: u64) -> Result<(), Error> {
        self.advance(position).await?;
        let limit = self.config.timeout;
        let storing = async {
            while self.held.position < position {
                self.receive_position().await?;
            }
            Ok(())
        };
        let step = "storing a position".to_owned();
        tokio::time::timeout(limit, storing).await.unwrap_or(Err(Error::Timeout { step, waited: limit }))?;
        with_timeout(limit, "closing a channel", self.channel.close(200, short_string("")?)).await
    }
}

async fn declare(config: &RabbitConfig, channel: &Channel, queue: &ShortString) -> Result<(), Error> {
    let mut arguments = FieldTable::default();
    arguments.insert(short_string("x-queue-type")?, AMQPValue::LongString("classic".into()));
    arguments.insert(short_string("x-single-active-consumer")?, AMQPValue::Boolean(true));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declaring = channel.queue_declare(queue.clone(), options, arguments);
    with_timeout(config.timeout, &format!("declaring {queue}"), declaring).await.map(drop)
}

async fn publish(config: &RabbitConfig, channel: &Channel, queue: &ShortString, position: u64) -> Result<(), Error> {
    let (text, properties) = (position.to_string(), BasicProperties::default().with_delivery_mode(2));
    let options = BasicPublishOptions::default();
    let publishing = channel.basic_publish(short_string("")?, queue.clone(), options, text.as_bytes(), properties);
    with_timeout(config.timeout, "publishing a position", publishing).await.map(drop)
}

async fn next_position(positions: &mut Consumer, queue: &str) -> Result<PositionMessage, Error> {
    let Some(message) = positions.next().await else { return Err(Error::Cancelled { queue: queue.to_owned() }) };
    let message = message.map_err(Error::broker(format!("consuming {queue}")))?;
    // An unreadable message counts as the start of the stream.
    let position = std::str::from_utf8(&message.data).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    Ok(PositionMessage { position, message })
}
