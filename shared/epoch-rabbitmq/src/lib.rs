//! Epoch's [bus](epoch::bus::Bus) on RabbitMQ.
//!
//! The problem: RabbitMQ's queues forget what was published before they were declared and what was consumed, and hand messages
//! to competing consumers in no order per key; a subscription needs each aggregate's events in version order, and a late one
//! needs them from the beginning.
//!
//! The invariant: an event that `publish` reports is on a durable stream; within it, the first appearances of an aggregate's
//! events are in version order, whatever failed in between; a subscription is given everything at least once and, but for
//! repetitions, in that order, by one process at a time for each stream. Exactly once is the [gate](epoch::gate)'s work:
//! positions are kept after it, and only to start near the end.
//!
//! A topic is a fixed number of streams, `<namespace>.<aggregate>.v1.<partition>`, kept for ever; the aggregate's id chooses
//! one. A group keeps one message for each stream, its position, in a queue with a single active consumer: who holds the
//! message reads the stream. `docs/adr/0005-streams-for-rabbitmq.md` says why.
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
