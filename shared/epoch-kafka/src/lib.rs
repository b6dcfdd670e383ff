//! Epoch's [bus](epoch::bus::Bus) on Kafka.
//!
//! The problem: services in other processes, perhaps in other languages, need each aggregate's events in version order, through
//! crashes, rebalances and broker outages, and a late subscriber needs them from the beginning.
//!
//! The invariant: an event that `publish` reports is on all in-sync replicas; within a partition the first appearances of an
//! aggregate's events are in version order, whatever failed in between; a subscription is given everything at least once and,
//! but for repetitions, in that order. Exactly once is the [gate](epoch::gate)'s work: broker offsets are committed after it,
//! and only for lag figures and to start near the end.
//!
//! One topic an aggregate, `<namespace>.<aggregate>.v1`, kept for ever; the key is the aggregate's id, partitioned like Java's
//! client does, so that a topic must never be given more partitions once it has events. The record is the CloudEvent that
//! [`epoch::message`] makes.
//!
//! With a [schema registry](epoch_registry::SchemaRegistry) the payload is framed for Confluent's wire format, without one for Avro's single-object
//! encoding. Both are always read. While the registry is away, events whose schema it has numbered before are published and
//! consumed as ever; others wait for it.
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

mod assigned_partition;
mod bus;
mod client_log;
mod config;
mod consumer;
mod error;
mod health;
mod partition_task;
mod publisher;
mod topic_partitions;
mod topics;

pub use bus::KafkaBus;
pub use config::KafkaConfig;
pub use error::Error;
pub use health::Unhealthy;
pub use topic_partitions::partition_of;

/// The pages of the guide whose code needs nothing but this crate and those below it: compiled, and run where they need no server.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../../../docs/epoch/buses.md")]
    mod buses {}
}
