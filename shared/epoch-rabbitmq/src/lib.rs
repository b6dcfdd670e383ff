//! Epoch's [bus](epoch::bus::Bus) on RabbitMQ.
//!
//! The bus uses RabbitMQ's streams. Classic queues do not fit: they drop consumed messages, miss the messages from before their
//! declaration, and give competing consumers no order per key. `docs/adr/0005-streams-for-rabbitmq.md` explains the decision.
//!
//! # Guarantees
//!
//! - An event that `publish` acknowledges is on a durable stream.
//! - Within a stream, the first occurrences of an aggregate's events are in version order, through crashes and broker outages.
//! - A subscription receives every event at least once, from the beginning of the topic, in that order apart from duplicates. One
//!   process of a group at a time reads a stream.
//!
//! The [gate](epoch::gate) turns this into exactly-once processing. Positions are stored after the gate, and serve only to start near
//! the end.
//!
//! # Topics
//!
//! A topic is a fixed number of streams, `<namespace>.<aggregate>.v1.<partition>`, with unlimited retention. The aggregate's id
//! selects the stream. For each stream, a group stores its position as a message in a queue with a single active consumer. The
//! process that holds this message reads the stream.
//!
//! ```no_run
//! # async fn example(subscription: std::sync::Arc<dyn epoch::handler::Subscription>) -> Result<(), epoch_rabbitmq::Error> {
//! use epoch::bus::Bus;
//! use epoch_rabbitmq::{RabbitBus, RabbitConfig};
//! use tokio_util::sync::CancellationToken;
//!
//! let bus = RabbitBus::new(RabbitConfig::new("amqp://localhost:5672"))?;
//! let stop = CancellationToken::new();
//! if let Err(error) = bus.consume(subscription, stop).await {
//!     tracing::error!(%error, "consumer ended");
//! }
//! # Ok(())
//! # }
//! ```

#![warn(missing_docs)]

mod active_streams;
mod bus;
mod config;
mod connection;
mod consumer;
mod error;
mod lease;
mod message;
mod publisher;
mod stream_task;
mod tls;
mod topic;

pub use bus::RabbitBus;
pub use config::RabbitConfig;
pub use error::Error;

/// Compiles the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
