//! Settings.
//!
//! The problem: librdkafka has some two hundred settings; a few carry our promises, a few must suit the installation (TLS,
//! SASL, sizes), and the defaults of some are wrong for us.
//!
//! The invariant: whoever installs it can change everything except what the promises rest on. Kept by the order in which the
//! three are set: our defaults, then the given ones, then the fixed ones.

use std::{collections::BTreeMap, fmt, time::Duration};

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};

/// Where the broker is and how to use it.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// `host:port`, several separated by commas.
    pub bootstrap_servers: String,
    /// Begins every topic, event type and source.
    pub namespace: String,
    /// Begins every consumer group: `<group_prefix>.<subscription>`.
    pub group_prefix: String,
    /// How many partitions a new topic gets; those of an existing one are never changed, for keys would move.
    pub partitions: i32,
    /// How many replicas a new topic gets.
    pub replication: i32,
    /// How long to wait for a sign of the broker before `publish` gives up.
    pub delivery_timeout: Duration,
    /// How long a partition's task may go on with its batch when the partition is taken away.
    pub drain_timeout: Duration,
    /// How long a partition may have events and show no sign of life before the bus says that it is unhealthy.
    pub stuck_after: Duration,
    /// Further settings of librdkafka, for all clients.
    pub settings: BTreeMap<String, String>,
}

const DEFAULTS: [(&str, &str); 3] =
    [("reconnect.backoff.ms", "50"), ("reconnect.backoff.max.ms", "1000"), ("socket.keepalive.enable", "true")];

const PRODUCER_DEFAULTS: [(&str, &str); 2] = [("linger.ms", "0"), ("compression.type", "lz4")];

const PRODUCER_FIXED: [(&str, &str); 4] = [
    ("acks", "all"),
    ("enable.idempotence", "true"),
    // A batch that the broker refuses must stop those behind it: fatal, instead of going on with a hole.
    ("enable.gapless.guarantee", "true"),
    // An event that times out by itself would leave a hole as well; `publish` gives up on all of them at once.
    ("message.timeout.ms", "0"),
];

const CONSUMER_DEFAULTS: [(&str, &str); 10] = [
    // Others take over this soon after a crash, and take part in a rebalance this soon.
    ("session.timeout.ms", "10000"),
    ("heartbeat.interval.ms", "1000"),
    // A topic that appears later is seen this soon. Not a divisor of the three seconds for which brokers usually let a new
    // group gather: a refresh at the very moment in which it forms makes librdkafka join again.
    ("topic.metadata.refresh.interval.ms", "900"),
    ("statistics.interval.ms", "5000"),
    // What librdkafka reads ahead of us. It throws that away when a partition is paused, and the default backoff of one
    // second would be paid at every refill.
    ("queued.min.messages", "2000"),
    ("queued.max.messages.kbytes", "16384"),
    ("max.partition.fetch.bytes", "524288"),
    ("fetch.queue.backoff.ms", "10"),
    // A partition that is resumed waits for the request that is open for the others.
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
    /// The usual settings for the broker at `bootstrap_servers`.
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

    /// The consumer group of a subscription.
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
        // Warnings are counted, also where the log leaves them out.
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
    /// Without the values of the further settings: there may be passwords among them.
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
    fn promises_can_not_be_configured_away() {
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
    fn passwords_are_not_shown() {
        let mut config = KafkaConfig::new("a:1");
        config.settings.insert("sasl.password".to_owned(), "secret".to_owned());
        let shown = format!("{config:?}");
        assert!(shown.contains("sasl.password") && !shown.contains("\"secret\""), "{shown}");
    }
}
