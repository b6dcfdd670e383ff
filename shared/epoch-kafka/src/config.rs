//! Settings of the Kafka bus.
//!
//! Settings are applied in three layers: this crate's defaults, the operator's settings, and the fixed settings. Operators can
//! therefore change everything except the settings that guarantee order and durability.

use std::{collections::BTreeMap, fmt, time::Duration};

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};

/// Settings of the bus and its clients.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// Broker addresses as `host:port`, separated by commas.
    pub bootstrap_servers: String,
    /// The first part of every topic, event type and event source.
    pub namespace: String,
    /// The first part of every consumer group: `<group_prefix>.<subscription>`.
    pub group_prefix: String,
    /// The number of partitions of a new topic. An existing topic keeps its partitions, because more would move keys.
    pub partitions: i32,
    /// The replication factor of a new topic.
    pub replication: i32,
    /// The time limit of `publish` for each of the broker's responses.
    pub delivery_timeout: Duration,
    /// The time that a partition's task gets to finish its batch when the partition is revoked.
    pub drain_timeout: Duration,
    /// The time without activity after which a partition that has events makes the bus unhealthy.
    pub stuck_after: Duration,
    /// Additional librdkafka settings for all clients, for example TLS and SASL.
    pub settings: BTreeMap<String, String>,
}

const DEFAULTS: [(&str, &str); 3] =
    [("reconnect.backoff.ms", "50"), ("reconnect.backoff.max.ms", "1000"), ("socket.keepalive.enable", "true")];

const PRODUCER_DEFAULTS: [(&str, &str); 2] = [("linger.ms", "0"), ("compression.type", "lz4")];

const PRODUCER_FIXED: [(&str, &str); 4] = [
    ("acks", "all"),
    ("enable.idempotence", "true"),
    // Makes a refused batch a fatal error, so that no later batch is accepted and leaves a gap.
    ("enable.gapless.guarantee", "true"),
    // A single event that times out would leave a gap as well. `publish` has its own time limit and closes the producer.
    ("message.timeout.ms", "0"),
];

const CONSUMER_DEFAULTS: [(&str, &str); 10] = [
    // The delay of a takeover after a crash, and of joining a rebalance.
    ("session.timeout.ms", "10000"),
    ("heartbeat.interval.ms", "1000"),
    // The delay until a new topic is discovered. Not a divisor of the three seconds for which brokers usually collect members of a
    // new group: a refresh at the moment of its first rebalance makes librdkafka join a second time.
    ("topic.metadata.refresh.interval.ms", "900"),
    ("statistics.interval.ms", "5000"),
    // The size of librdkafka's prefetch queue. It is discarded when a partition is paused, and the default backoff of one second
    // would delay every refill.
    ("queued.min.messages", "2000"),
    ("queued.max.messages.kbytes", "16384"),
    ("max.partition.fetch.bytes", "524288"),
    ("fetch.queue.backoff.ms", "10"),
    // A resumed partition waits until the fetch request that is open for the others returns.
    ("fetch.wait.max.ms", "100"),
    ("fetch.error.backoff.ms", "100"),
];

const CONSUMER_FIXED: [(&str, &str); 8] = [
    ("group.protocol", "classic"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "earliest"),
    ("isolation.level", "read_committed"),
    ("allow.auto.create.topics", "false"),
    ("enable.partition.eof", "false"),
];

impl KafkaConfig {
    /// Returns the default settings for the brokers at `bootstrap_servers`.
    #[must_use]
    pub fn new(bootstrap_servers: impl Into<String>) -> Self {
        Self {
            bootstrap_servers: bootstrap_servers.into(),
            namespace: "catacloud".to_owned(),
            group_prefix: "catacloud".to_owned(),
            partitions: 3,
            replication: 1,
            delivery_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(10),
            stuck_after: Duration::from_secs(60),
            settings: BTreeMap::new(),
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

    pub(crate) fn admin(&self) -> ClientConfig {
        self.client(&[], &[])
    }

    pub(crate) fn producer(&self) -> ClientConfig {
        self.client(&PRODUCER_DEFAULTS, &PRODUCER_FIXED)
    }

    pub(crate) fn consumer(&self, subscription: &str) -> ClientConfig {
        let mut config = self.client(&CONSUMER_DEFAULTS, &CONSUMER_FIXED);
        config.set("group.id", self.group(subscription));
        config
    }

    fn client(&self, defaults: &[(&str, &str)], fixed: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", &self.group_prefix);
        for (name, value) in DEFAULTS.iter().chain(defaults) {
            config.set(*name, *value);
        }
        for (name, value) in &self.settings {
            config.set(name, value);
        }
        for (name, value) in fixed {
            config.set(*name, *value);
        }
        config.set("bootstrap.servers", &self.bootstrap_servers);
        // Warnings are also counted as metrics, so librdkafka must report them even if the log level is higher.
        if matches!(
            config.log_level,
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error
        ) {
            config.set_log_level(RDKafkaLogLevel::Warning);
        }
        config
    }
}

impl fmt::Debug for KafkaConfig {
    /// Omits the values of the additional settings, which may contain passwords.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("KafkaConfig")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("namespace", &self.namespace)
            .field("group_prefix", &self.group_prefix)
            .field("partitions", &self.partitions)
            .field("replication", &self.replication)
            .field("settings", &self.settings.keys())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::KafkaConfig;

    #[test]
    fn settings_do_not_override_guarantees() {
        let mut config = KafkaConfig::new("a:1");
        for (name, value) in [
            ("acks", "1"),
            ("enable.auto.commit", "true"),
            ("group.id", "another"),
            ("bootstrap.servers", "b:1"),
            ("linger.ms", "7"),
        ] {
            config.settings.insert(name.to_owned(), value.to_owned());
        }
        let (producer, consumer) = (config.producer(), config.consumer("files"));
        assert_eq!(producer.get("acks"), Some("all"));
        assert_eq!(producer.get("linger.ms"), Some("7"));
        assert_eq!(producer.get("bootstrap.servers"), Some("a:1"));
        assert_eq!(consumer.get("enable.auto.commit"), Some("false"));
        assert_eq!(consumer.get("group.id"), Some("catacloud.files"));
    }

    #[test]
    fn debug_output_hides_passwords() {
        let mut config = KafkaConfig::new("a:1");
        config.settings.insert("sasl.password".to_owned(), "secret".to_owned());
        let output = format!("{config:?}");
        assert!(output.contains("sasl.password") && !output.contains("\"secret\""), "{output}");
    }
}
