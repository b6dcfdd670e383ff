//! Errors of the Kafka bus.
//!
//! Each error names the topic, partition and offset where they are known, and keeps its source.

use std::time::Duration;

use epoch_registry::RegistryError;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// A failure of the broker, of the connection, or of the configuration.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// librdkafka rejects the client settings.
    #[error("kafka client settings are invalid")]
    Settings {
        /// The rejected setting.
        source: KafkaError,
    },
    /// An administrative request failed.
    #[error("cannot list or create topics")]
    Admin {
        /// The failure that librdkafka reported.
        source: KafkaError,
    },
    /// The broker refused to create a topic.
    #[error("cannot create topic {topic}")]
    Topic {
        /// The name of the topic.
        topic: String,
        /// The broker's error code.
        source: RDKafkaErrorCode,
    },
    /// The partitions of a topic could not be listed.
    #[error("cannot list the partitions of topic {topic}")]
    Partitions {
        /// The name of the topic.
        topic: String,
        /// The failure that librdkafka reported.
        source: KafkaError,
    },
    /// A schema that the bus was created with is invalid.
    #[error("schemas cannot be registered")]
    Registry {
        /// The invalid schema.
        source: RegistryError,
    },
    /// The schema of an event has no registry id, so the event was not published.
    #[error("cannot frame an event for topic {topic}")]
    Frame {
        /// The event's topic.
        topic: String,
        /// The registry's failure.
        source: RegistryError,
    },
    /// librdkafka did not accept an event for sending.
    #[error("cannot enqueue an event for topic {topic}")]
    Enqueue {
        /// The event's topic.
        topic: String,
        /// The failure that librdkafka reported.
        source: KafkaError,
    },
    /// The broker did not accept an event.
    #[error("event for topic {topic}, partition {partition} was not delivered")]
    Delivery {
        /// The event's topic.
        topic: String,
        /// The event's partition; -1 if none was chosen.
        partition: i32,
        /// The failure that librdkafka reported.
        source: KafkaError,
    },
    /// The broker did not acknowledge an event in time.
    #[error("no acknowledgement after {waited:?} for an event of topic {topic}")]
    DeliveryTimeout {
        /// The event's topic.
        topic: String,
        /// The configured time limit.
        waited: Duration,
    },
    /// A concurrent call failed and closed the shared producer while this event was in flight.
    #[error("producer was closed before it sent an event for topic {topic}")]
    ProducerClosed {
        /// The event's topic.
        topic: String,
    },
    /// librdkafka refused the topic subscription.
    #[error("cannot subscribe to topics {topics:?}")]
    Subscribe {
        /// The names of the topics.
        topics: Vec<String>,
        /// The failure that librdkafka reported.
        source: KafkaError,
    },
    /// The consumer failed permanently.
    #[error("consumer failed permanently")]
    Fatal {
        /// The failure that librdkafka reported.
        source: KafkaError,
    },
    /// The task that delivers a partition's events ended unexpectedly, for example by a panic in a handler.
    #[error("delivery of topic {topic}, partition {partition} ended unexpectedly before offset {offset}")]
    TaskEnded {
        /// The partition's topic.
        topic: String,
        /// Number of the partition in the topic, from 0.
        partition: i32,
        /// The first offset that was not delivered; -1 if no event had arrived.
        offset: i64,
    },
    /// The polling thread could not be started or panicked.
    #[error("polling thread failed: {detail}")]
    Thread {
        /// The cause.
        detail: String,
    },
}
