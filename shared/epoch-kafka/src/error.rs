//! What can go wrong between Epoch and a broker.
//!
//! The problem: "it didn't work" at three in the morning.
//! The invariant: every error names the topic, the partition and the offset as far as they are known, and keeps its source.

use std::time::Duration;

use epoch_registry::RegistryError;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// A fault of the broker, of the way to it, or of how it is used.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No client can be made of these settings.
    #[error("the client's settings are refused")]
    Settings {
        /// What librdkafka said.
        source: KafkaError,
    },
    /// The broker didn't answer an administrative request.
    #[error("topics can't be looked for or created")]
    Admin {
        /// What librdkafka said.
        source: KafkaError,
    },
    /// The broker refused to create a topic.
    #[error("topic {topic} can't be created")]
    Topic {
        /// Which.
        topic: String,
        /// What the broker said.
        source: RDKafkaErrorCode,
    },
    /// The broker didn't say which partitions a topic has.
    #[error("the partitions of topic {topic} are not known")]
    Partitions {
        /// Whose.
        topic: String,
        /// What librdkafka said.
        source: KafkaError,
    },
    /// The schema registry can't be used as it is set.
    #[error("schemas can't be registered")]
    Registry {
        /// Why.
        source: RegistryError,
    },
    /// An event's schema has no number in the registry so far.
    #[error("an event for topic {topic} can't be framed")]
    Frame {
        /// Where it should have gone.
        topic: String,
        /// What the registry said.
        source: RegistryError,
    },
    /// An event wasn't taken for sending.
    #[error("an event for topic {topic} can't be sent")]
    Enqueue {
        /// Where it should have gone.
        topic: String,
        /// What librdkafka said.
        source: KafkaError,
    },
    /// An event was sent and not taken by the broker.
    #[error("an event for topic {topic}, partition {partition} was not delivered")]
    Delivery {
        /// Where it should have gone.
        topic: String,
        /// Which partition; -1 when none had been chosen yet.
        partition: i32,
        /// What librdkafka said.
        source: KafkaError,
    },
    /// The broker said nothing about an event for too long.
    #[error("nothing was heard for {waited:?} of an event for topic {topic}")]
    Silence {
        /// Where it should have gone.
        topic: String,
        /// How long.
        waited: Duration,
    },
    /// The producer was given up by another caller while this event was on its way.
    #[error("the producer was given up before it had sent an event for topic {topic}")]
    GivenUp {
        /// Where it should have gone.
        topic: String,
    },
    /// The subscription to the topics was refused.
    #[error("topics {topics:?} can't be subscribed to")]
    Subscribe {
        /// Which.
        topics: Vec<String>,
        /// What librdkafka said.
        source: KafkaError,
    },
    /// The consumer can't be used any more.
    #[error("the consumer can't go on")]
    Fatal {
        /// What librdkafka said.
        source: KafkaError,
    },
    /// The task that delivers a partition's events has died.
    #[error("delivery of topic {topic}, partition {partition} ended unexpectedly before offset {offset}")]
    Died {
        /// Whose.
        topic: String,
        /// Whose.
        partition: i32,
        /// The first offset that wasn't delivered; -1 when none had come yet.
        offset: i64,
    },
    /// The thread that polls the consumer couldn't be started or has died.
    #[error("the polling thread is gone: {detail}")]
    Thread {
        /// What was seen.
        detail: String,
    },
}

/// An error and its sources in one line, for those that keep only text.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // librdkafka's errors repeat their source's text.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
