//! Epoch's [bus](epoch::bus::Bus) on Kafka.
//!
//! # Guarantees
//!
//! - An event that `publish` acknowledges is on all in-sync replicas.
//! - Within a partition, the first occurrences of an aggregate's events are in version order, through crashes, rebalances and broker
//!   outages.
//! - A subscription receives every event at least once, from the beginning of the topic, in that order apart from duplicates.
//!
//! The [gate](epoch::gate) turns this into exactly-once processing. Offsets are committed after the gate, and serve only to report
//! the lag and to start near the end.
//!
//! # Topics
//!
//! Each aggregate type has one topic, `<namespace>.<aggregate>.v1`, with unlimited retention. The key is the aggregate's id and the
//! partitioner is that of Kafka's Java client. More partitions would move keys, so the partition count of a topic with events must
//! not change. A record is a CloudEvent in the format of [`epoch::message`].
//!
//! With a [schema registry](epoch_registry::SchemaRegistry), payloads use Confluent's wire format, otherwise Avro's single-object
//! encoding. Consumers read both. While the registry is down, events with cached schemas are published and consumed as usual, and
//! events with other schemas wait.
//!
//! ```no_run
//! # async fn example(subscription: std::sync::Arc<dyn epoch::handler::Subscription>) -> Result<(), epoch_kafka::Error> {
//! use epoch::bus::Bus;
//! use epoch_kafka::{KafkaBus, KafkaConfig};
//! use tokio_util::sync::CancellationToken;
//!
//! let bus = KafkaBus::connect(KafkaConfig::new("localhost:9092"))?;
//! let stop = CancellationToken::new();
//! if let Err(error) = bus.consume(subscription, stop).await {
//!     tracing::error!(%error, "consumer ended");
//! }
//! # Ok(())
//! # }
//! ```

#![warn(missing_docs)]

mod assigned_partition;
mod bus;
mod client_log;
mod config;
mod consumer;
mod error;
mod health;
mod lock;
mod partition_task;
mod partitioner;
mod producer;
mod progress;
mod publisher;
mod record;
mod topic_partitions;
mod topics;

pub use bus::KafkaBus;
pub use config::KafkaConfig;
pub use error::Error;
pub use health::Unhealthy;
pub use partitioner::partition_of;

/// Compiles the README, and the guide's pages that no lower crate compiles.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../../../docs/epoch/buses.md")]
    mod buses {}
    #[doc = include_str!("../../../docs/epoch/commands.md")]
    mod commands {}
    #[doc = include_str!("../../../docs/epoch/personal-data.md")]
    mod personal_data {}
    #[doc = include_str!("../../../docs/epoch/reading-your-writes.md")]
    mod reading_your_writes {}
    #[doc = include_str!("../../../docs/epoch/rebuilding.md")]
    mod rebuilding {}
    #[doc = include_str!("../../../docs/epoch/snapshots.md")]
    mod snapshots {}
    #[doc = include_str!("../README.md")]
    mod readme {}
}
