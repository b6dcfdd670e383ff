//! Who reads a stream for a group, and from where.
//!
//! The problem: a stream has any number of readers and remembers none of them. A group needs one reader at a time, the next when
//! that one dies, and the place where it was.
//!
//! The invariant: for each stream a group has a queue with a single active consumer, and in it its position, a message that is
//! held unacknowledged by the reader. Whoever is handed it is the reader; when its channel ends, however it ends, the message
//! goes to the next in line. A position is replaced by publishing the new one and acknowledging the old one when the new one has come
//! round, so there is always at least one; of several the highest counts.

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
    connection::{channel, short, within},
    error::Error,
};

/// How many positions may be in hand: ours, its successor, and those with which others that start up begin.
const POSITIONS: u16 = 64;
/// How long to look for further positions when the first has come.
const FURTHER: std::time::Duration = std::time::Duration::from_millis(20);

/// The right to read a stream for a group.
pub(crate) struct Lease {
    config: RabbitConfig,
    queue: String,
    channel: Channel,
    positions: Consumer,
    held: Held,
    /// The last one published.
    published: u64,
}

struct Held {
    position: u64,
    message: Delivery,
}

impl Lease {
    /// Waits in line until the stream is ours; `None` when told to stop before.
    pub(crate) async fn wait(
        config: &RabbitConfig,
        connection: &Connection,
        group: &str,
        stream: &str,
        stop: &CancellationToken,
    ) -> Result<Option<Self>, Error> {
        let queue = format!("{group}@{stream}");
        let channel = channel(config, connection).await?;
        let name = short(&queue)?;
        declare(config, &channel, &name).await?;
        let qos = channel.basic_qos(POSITIONS, BasicQosOptions::default());
        within(config.timeout, "limiting positions in hand", qos).await?;
        let consuming =
            channel.basic_consume(name.clone(), short("")?, BasicConsumeOptions::default(), FieldTable::default());
        let mut positions = within(config.timeout, &format!("consuming {queue}"), consuming).await?;
        // Somebody must begin. Where there is a higher one, this one is thrown away.
        publish(config, &channel, &name, 0).await?;
        let Some(first) = stop.run_until_cancelled(next(&mut positions, &queue)).await else { return Ok(None) };
        let (config, published) = (config.clone(), 0);
        let mut lease = Self { config, queue, channel, positions, held: first?, published };
        while let Ok(further) = tokio::time::timeout(FURTHER, lease.turn()).await {
            further?;
        }
        Ok(Some(lease))
    }

    /// Where to go on reading.
    pub(crate) fn position(&self) -> u64 {
        self.held.position
    }

    /// Takes the next position that comes, and keeps the higher one. Nothing is lost when it is dropped while waiting.
    pub(crate) async fn turn(&mut self) -> Result<(), Error> {
        let other = next(&mut self.positions, &self.queue).await?;
        let lower = if other.position < self.held.position { other } else { std::mem::replace(&mut self.held, other) };
        let acknowledging = lower.message.ack(BasicAckOptions::default());
        within(self.config.timeout, "acknowledging a position", acknowledging).await.map(drop)
    }

    /// Puts a new position into the queue; it comes round to [`turn`](Self::turn).
    pub(crate) async fn advance(&mut self, position: u64) -> Result<(), Error> {
        if position <= self.published.max(self.held.position) {
            return Ok(());
        }
        publish(&self.config, &self.channel, &short(&self.queue)?, position).await?;
        self.published = position;
        Ok(())
    }

    /// How many consumers the group has for this stream.
    pub(crate) async fn consumers(&self) -> Result<u32, Error> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asking = self.channel.queue_declare(short(&self.queue)?, options, FieldTable::default());
        Ok(within(self.config.timeout, "counting consumers", asking).await?.consumer_count())
    }

    /// Leaves `position` to the next in line.
    pub(crate) async fn release(mut self, position: u64) -> Result<(), Error> {
        self.advance(position).await?;
        let limit = self.config.timeout;
        let round = async {
            while self.held.position < position {
                self.turn().await?;
            }
            Ok(())
        };
        let step = "keeping a position".to_owned();
        tokio::time::timeout(limit, round).await.unwrap_or(Err(Error::Silence { step, waited: limit }))?;
        within(limit, "closing a channel", self.channel.close(200, short("")?)).await
    }
}

async fn declare(config: &RabbitConfig, channel: &Channel, queue: &ShortString) -> Result<(), Error> {
    let mut arguments = FieldTable::default();
    arguments.insert(short("x-queue-type")?, AMQPValue::LongString("classic".into()));
    arguments.insert(short("x-single-active-consumer")?, AMQPValue::Boolean(true));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declaring = channel.queue_declare(queue.clone(), options, arguments);
    within(config.timeout, &format!("declaring {queue}"), declaring).await.map(drop)
}

async fn publish(config: &RabbitConfig, channel: &Channel, queue: &ShortString, position: u64) -> Result<(), Error> {
    let (text, properties) = (position.to_string(), BasicProperties::default().with_delivery_mode(2));
    let options = BasicPublishOptions::default();
    let publishing = channel.basic_publish(short("")?, queue.clone(), options, text.as_bytes(), properties);
    within(config.timeout, "publishing a position", publishing).await.map(drop)
}

async fn next(positions: &mut Consumer, queue: &str) -> Result<Held, Error> {
    let Some(message) = positions.next().await else { return Err(Error::Cancelled { queue: queue.to_owned() }) };
    let message = message.map_err(Error::broker(format!("consuming {queue}")))?;
    // What isn't ours counts as the beginning.
    let position = std::str::from_utf8(&message.data).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    Ok(Held { position, message })
}
