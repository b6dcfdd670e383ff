//! Settings of the RabbitMQ bus.
//!
//! Order and durability do not depend on any of them.

use std::{fmt, time::Duration};

/// Settings of the bus and its connections.
#[derive(Clone, PartialEq, Eq)]
pub struct RabbitConfig {
    /// The broker's address, `amqp://user:password@host:port/vhost`, or `amqps://…` for TLS.
    pub url: String,
    /// PEM certificates of authorities that are trusted in addition to the public ones; only with `amqps`.
    pub authorities: Option<String>,
    /// The first part of every topic, event type and event source.
    pub namespace: String,
    /// The first part of every consumer group: `<group_prefix>.<subscription>`.
    pub group_prefix: String,
    /// The number of streams of a new topic. An existing topic keeps its streams, because more would move aggregates.
    pub partitions: u16,
    /// The time limit for each of the broker's responses.
    pub timeout: Duration,
    /// The time that a stream's task gets to finish its batch when it is stopped.
    pub drain_timeout: Duration,
}

impl RabbitConfig {
    /// Returns the default settings for the broker at `url`.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            authorities: None,
            namespace: "catacloud".to_owned(),
            group_prefix: "catacloud".to_owned(),
            partitions: 3,
            timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(10),
        }
    }

    /// Returns the consumer group of a subscription.
    #[must_use]
    pub fn group(&self, subscription: &str) -> String {
        format!("{}.{subscription}", self.group_prefix)
    }

    pub(crate) fn topic(&self, aggregate: &str) -> String {
        epoch::message::topic(&self.namespace, aggregate)
    }
}

impl fmt::Debug for RabbitConfig {
    /// Omits the address, which may contain a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RabbitConfig")
            .field("namespace", &self.namespace)
            .field("group_prefix", &self.group_prefix)
            .field("partitions", &self.partitions)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::RabbitConfig;

    #[test]
    fn debug_output_hides_passwords() {
        let config = RabbitConfig::new("amqp://user:secret@localhost");
        assert!(!format!("{config:?}").contains("secret"));
    }
}
