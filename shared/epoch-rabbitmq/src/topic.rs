//! Topics.
//!
//! The problem: an aggregate must stay in its stream, although processes with different settings use the topic, start at the same
//! moment, and AMQP has no question for how many streams there are.
//!
//! The invariant: a topic has as many streams as the first message of the stream that bears its name says. Everybody may
//! propose a number by adding a message; a log has only one first message. The stream of an aggregate follows from its id and that
//! number alone.

use futures::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, Consumer, Queue,
    options::{BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use uuid::Uuid;

use crate::{
    config::RabbitConfig,
    connection::{channel, short, within},
    error::Error,
    message,
};

/// The streams of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) name: String,
    /// How many, at least 1.
    partitions: u16,
}

impl Topic {
    /// The stream's name.
    pub(crate) fn stream(&self, partition: u16) -> String {
        format!("{}.{partition}", self.name)
    }

    pub(crate) fn partitions(&self) -> std::ops::Range<u16> {
        0..self.partitions
    }

    /// The partition of an aggregate.
    pub(crate) fn partition_of(&self, id: Uuid) -> u16 {
        let partition = hash(id.as_bytes()) % u64::from(self.partitions.max(1));
        u16::try_from(partition).unwrap_or(0)
    }
}

/// FNV-1a, 64 bits, with the better mixed upper half folded into the lower one.
fn hash(bytes: &[u8]) -> u64 {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash ^ (hash >> 32)
}

/// Agrees with everybody else on the topic's streams, and declares what is missing.
pub(crate) async fn ensure(config: &RabbitConfig, connection: &Connection, name: &str) -> Result<Topic, Error> {
    let channel = channel(config, connection).await?;
    let proposals = declare(config, &channel, name).await?;
    // It may be there and not yet counted: a proposal too many does no harm.
    if proposals.message_count() == 0 {
        propose(config, &channel, name).await?;
    }
    let topic = Topic { name: name.to_owned(), partitions: agreed(config, &channel, name).await? };
    for partition in topic.partitions() {
        declare(config, &channel, &topic.stream(partition)).await?;
    }
    tracing::debug!(topic = name, partitions = topic.partitions, "topic found or created");
    within(config.timeout, "closing a channel", channel.close(200, short("")?)).await?;
    Ok(topic)
}

async fn declare(config: &RabbitConfig, channel: &Channel, stream: &str) -> Result<Queue, Error> {
    let mut arguments = FieldTable::default();
    arguments.insert(short("x-queue-type")?, AMQPValue::LongString("stream".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declaring = channel.queue_declare(short(stream)?, options, arguments);
    within(config.timeout, &format!("declaring stream {stream}"), declaring).await
}

async fn propose(config: &RabbitConfig, channel: &Channel, name: &str) -> Result<(), Error> {
    let selecting = channel.confirm_select(ConfirmSelectOptions::default());
    within(config.timeout, "asking for confirmations", selecting).await?;
    let (proposal, properties) = (config.partitions.max(1).to_string(), BasicProperties::default());
    let options = BasicPublishOptions::default();
    let publishing = channel.basic_publish(short("")?, short(name)?, options, proposal.as_bytes(), properties);
    let confirm = within(config.timeout, "proposing a number of streams", publishing).await?;
    if within(config.timeout, "proposing a number of streams", confirm).await?.is_ack() {
        Ok(())
    } else {
        Err(Error::Refused { stream: name.to_owned() })
    }
}

/// What the first proposal says.
async fn agreed(config: &RabbitConfig, channel: &Channel, name: &str) -> Result<u16, Error> {
    let mut messages = read_from(config, channel, name, 0, 1).await?;
    let first = tokio::time::timeout(config.timeout, messages.next()).await;
    let first = first.map_err(|_| Error::Silence { step: format!("reading {name}"), waited: config.timeout })?;
    let first = first.ok_or_else(|| Error::Cancelled { queue: name.to_owned() })?;
    let first = first.map_err(Error::broker(format!("reading {name}")))?;
    let agreed = std::str::from_utf8(&first.data).ok().and_then(|text| text.parse().ok()).filter(|count| *count > 0);
    agreed.ok_or_else(|| Error::NotATopic { name: name.to_owned() })
}

/// Consumes a stream from an offset, with so many messages in hand.
pub(crate) async fn read_from(
    config: &RabbitConfig,
    channel: &Channel,
    stream: &str,
    offset: u64,
    prefetch: u16,
) -> Result<Consumer, Error> {
    let qos = channel.basic_qos(prefetch, BasicQosOptions::default());
    within(config.timeout, "limiting messages in hand", qos).await?;
    let offset = AMQPValue::LongLongInt(i64::try_from(offset).unwrap_or(i64::MAX));
    let mut arguments = FieldTable::default();
    arguments.insert(short(message::OFFSET)?, offset);
    let consuming = channel.basic_consume(short(stream)?, short("")?, BasicConsumeOptions::default(), arguments);
    within(config.timeout, &format!("consuming {stream}"), consuming).await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topic(partitions: u16) -> Topic {
        Topic { name: "catacloud.file.v1".to_owned(), partitions }
    }

    #[test]
    fn an_aggregate_never_moves() {
        // Changing these numbers would take aggregates away from their past.
        let partitions = [1_u128, 2, 3, u128::MAX].map(|id| topic(7).partition_of(Uuid::from_u128(id)));
        assert_eq!(partitions, [6, 4, 1, 1]);
    }

    proptest! {
        #[test]
        fn every_aggregate_has_a_stream(id: u128, partitions in 1..100_u16) {
            prop_assert!(topic(partitions).partition_of(Uuid::from_u128(id)) < partitions);
        }
    }

    #[test]
    fn aggregates_are_spread_evenly() {
        let mut counts = [0_u32; 6];
        for _ in 0..6_000 {
            counts[usize::from(topic(6).partition_of(Uuid::now_v7()))] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }
}
