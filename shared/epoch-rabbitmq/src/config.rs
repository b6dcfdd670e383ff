//! Settings.
//!
//! The problem: an address with a password in it, and a few sizes that must suit the installation.
//! The invariant: what the promises rest on isn't a setting, and a password is never shown.

use std::{fmt, time::Duration};

/// Where the broker is and how to use it.
#[derive(Clone, PartialEq, Eq)]
pub struct RabbitConfig {
    /// `amqp://user:password@host:port/vhost`; with `amqps` over TLS.
    pub url: String,
    /// Certificates, in PEM, of authorities that may vouch for the broker besides the public ones; only with `amqps`.
    pub authorities: Option<String>,
    /// Begins every topic, event type and source.
    pub namespace: String,
    /// Begins every consumer group: `<group_prefix>.<subscription>`.
    pub group_prefix: String,
    /// How many streams a new topic gets; those of an existing one are never changed, for aggregates would move.
    pub partitions: u16,
    /// How long to wait for a sign of the broker before a step is given up.
    pub timeout: Duration,
    /// How long a stream's task may go on with its batch when it is told to stop.
    pub drain_timeout: Duration,
}

impl RabbitConfig {
    /// The usual settings for the broker at `url`.
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

    /// The group of a subscription.
    #[must_use]
    pub fn group(&self, subscription: &str) -> String {
        format!("{}.{subscription}", self.group_prefix)
    }

    pub(crate) fn topic(&self, aggregate: &str) -> String {
        epoch::message::topic(&self.namespace, aggregate)
    }
}

impl fmt::Debug for RabbitConfig {
    /// Without the address: there may be a password in it.
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
    fn passwords_are_not_shown() {
        let config = RabbitConfig::new("amqp://user:secret@localhost");
        assert!(!format!("{config:?}").contains("secret"));
    }
}
