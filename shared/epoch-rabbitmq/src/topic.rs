//! Topics: numbered streams with a stream count that all processes agree on.
//!
//! An aggregate must stay in its stream, so all processes must use the same stream count, even when they start at the same time with
//! different settings. AMQP has no request that returns this count.
//!
//! The count is therefore the first message of a stream with the topic's name. Each process proposes a count by appending a message,
//! and the first message wins. The stream of an aggregate depends only on its id and this count.

use futures::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, Consumer, Queue,
    options::{BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use uuid::Uuid;

use crate::{
    config::RabbitConfig,
    connection::{open_channel, short_string, with_timeout},
    error::Error,
    message,
};

/// The streams of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) name: String,
    /// The number of streams, at least 1.
    partitions: u16,
}

impl Topic {
    /// Returns the name of a stream.
    pub(crate) fn stream(&self, partition: u16) -> String {
        format!("{}.{partition}", self.name)
    }

    pub(crate) fn partitions(&self) -> std::ops::Range<u16> {
        0..self.partitions
    }

    /// Returns the partition of an aggregate.
    pub(crate) fn partition_of(&self, id: Uuid) -> u16 {
        let partition = hash(id.as_bytes()) % u64::from(self.partitions.max(1));
        u16::try_from(partition).unwrap_or(0)
    }
}

/// Returns the 64-bit FNV-1a hash, with the better mixed upper half folded into the lower half.
fn hash(bytes: &[u8]) -> u64 {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash ^ (hash >> 32)
}

/// Agrees on the stream count with all other processes, and declares the missing streams.
pub(crate) async fn ensure(config: &RabbitConfig, connection: &Connection, name: &str) -> Result<Topic, Error> {
    let channel = open_channel(config, connection).await?;
    let proposals = declare(config, &channel, name).await?;
    // The message count is updated with a delay, so a proposal may already exist. An additional one has no effect.
    if proposals.message_count() == 0 {
        propose(config, &channel, name).await?;
    }
    let topic = Topic { name: name.to_owned(), partitions: agreed_count(config, &channel, name).await? };
    for partition in topic.partitions() {
        declare(config, &channel, &topic.stream(partition)).await?;
    }
    tracing::debug!(topic = name, partitions = topic.partitions, "topic is ready");
    with_timeout(config.timeout, "closing a channel", channel.close(200, short_string("")?)).await?;
    Ok(topic)
}

async fn declare(config: &RabbitConfig, channel: &Channel, stream: &str) -> Result<Queue, Error> {
    let mut arguments = FieldTable::default();
    arguments.insert(short_string("x-queue-type")?, AMQPValue::LongString("stream".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declaring = channel.queue_declare(short_string(stream)?, options, arguments);
    with_timeout(config.timeout, &format!("declaring stream {stream}"), declaring).await
}

async fn propose(config: &RabbitConfig, channel: &Channel, name: &str) -> Result<(), Error> {
    let selecting = channel.confirm_select(ConfirmSelectOptions::default());
    with_timeout(config.timeout, "enabling publisher confirms", selecting).await?;
    let (proposal, properties) = (config.partitions.max(1).to_string(), BasicProperties::default());
    let options = BasicPublishOptions::default();
    let publishing =
        channel.basic_publish(short_string("")?, short_string(name)?, options, proposal.as_bytes(), properties);
    let confirm = with_timeout(config.timeout, "proposing a number of streams", publishing).await?;
    if with_timeout(config.timeout, "proposing a number of streams", confirm).await?.is_ack() {
        Ok(())
    } else {
        Err(Error::Refused { stream: name.to_owned() })
    }
}

/// Reads the first proposal.
async fn agreed_count(config: &RabbitConfig, channel: &Channel, name: &str) -> Result<u16, Error> {
    let mut messages = read_from(config, channel, name, 0, 1).await?;
    let first = tokio::time::timeout(config.timeout, messages.next()).await;
    let first = first.map_err(|_| Error::Timeout { step: format!("reading {name}"), waited: config.timeout })?;
    let first = first.ok_or_else(|| Error::Cancelled { queue: name.to_owned() })?;
    let first = first.map_err(Error::broker(format!("reading {name}")))?;
    let count = std::str::from_utf8(&first.data).ok().and_then(|text| text.parse().ok()).filter(|count| *count > 0);
    count.ok_or_else(|| Error::NotATopic { name: name.to_owned() })
}

/// Consumes a stream from an offset, with at most `prefetch` unacknowledged messages.
pub(crate) async fn read_from(
    config: &RabbitConfig,
    channel: &Channel,
    stream: &str,
    offset: u64,
    prefetch: u16,
) -> Result<Consumer, Error> {
    let qos = channel.basic_qos(prefetch, BasicQosOptions::default());
    with_timeout(config.timeout, "setting the prefetch limit", qos).await?;
    let offset = AMQPValue::LongLongInt(i64::try_from(offset).unwrap_or(i64::MAX));
    let mut arguments = FieldTable::default();
    arguments.insert(short_string(message::OFFSET)?, offset);
    let consuming =
        channel.basic_consume(short_string(stream)?, short_string("")?, BasicConsumeOptions::default(), arguments);
    with_timeout(config.timeout, &format!("consuming {stream}"), consuming).await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topic(partitions: u16) -> Topic {
        Topic { name: "catacloud.file.v1".to_owned(), partitions }
    }

    #[test]
    fn partition_of_never_changes() {
        // Other values would separate aggregates from their earlier events.
        let partitions = [1_u128, 2, 3, u128::MAX].map(|id| topic(7).partition_of(Uuid::from_u128(id)));
        assert_eq!(partitions, [6, 4, 1, 1]);
    }

    proptest! {
        #[test]
        fn partition_of_is_below_the_stream_count(id: u128, partitions in 1..100_u16) {
            prop_assert!(topic(partitions).partition_of(Uuid::from_u128(id)) < partitions);
        }
    }

    #[test]
    fn partition_of_spreads_aggregates_evenly() {
        let mut counts = [0_u32; 6];
        for _ in 0..6_000 {
            counts[usize::from(topic(6).partition_of(Uuid::now_v7()))] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }
}
