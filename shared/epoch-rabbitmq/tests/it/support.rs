//! Test configurations, events and subscriptions.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
pub(crate) use epoch::testkit::bus::kit::{ConsumerTask, LIMIT, ids, wait_until};
pub(crate) use epoch::testkit::metrics::value as metric;
use epoch::{
    envelope::{Batch, Envelope},
    gate::DeliverySource,
    handler::{DeliverError, DeliveryCounts, Subscription},
    testkit::{bus::kit, metrics},
};
use epoch_rabbitmq::{RabbitBus, RabbitConfig};
use lapin::{Connection, ConnectionProperties, options::QueueDeclareOptions, types::FieldTable};
use tokio::sync::watch;
use uuid::Uuid;

pub(crate) const AGGREGATE: &str = "file";

/// Returns settings with streams and groups that belong to one test, for the broker at `url`.
pub(crate) fn private(url: impl Into<String>) -> RabbitConfig {
    metrics::record();
    let _ = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).try_init();
    let namespace = format!("t{}", Uuid::now_v7().simple());
    RabbitConfig { group_prefix: namespace.clone(), namespace, ..RabbitConfig::new(url) }
}

/// Returns settings for the broker of this test run, or `None` when there is none.
pub(crate) fn config() -> Option<RabbitConfig> {
    let url = std::env::var("EPOCH_TEST_AMQP").ok();
    if url.is_none() {
        eprintln!("skipped: EPOCH_TEST_AMQP is not set");
    }
    url.map(private)
}

pub(crate) fn bus(config: &RabbitConfig) -> Arc<RabbitBus> {
    Arc::new(RabbitBus::new(config.clone()).unwrap())
}

/// Declares a queue that is not a stream.
pub(crate) async fn declare_classic(url: &str, name: &str) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name.into(), options, FieldTable::default()).await.unwrap();
}

/// Returns events with these versions of each aggregate, interleaved like those of concurrent writers.
pub(crate) fn events(ids: &[Uuid], versions: std::ops::RangeInclusive<u64>) -> Vec<Arc<Envelope>> {
    kit::events(AGGREGATE, ids, versions)
}

/// A subscription without a gate that records the first occurrence of each event, in order of arrival.
pub(crate) struct Recorder {
    name: &'static str,
    panics: bool,
    last_versions: Mutex<HashMap<Uuid, u64>>,
    first: watch::Sender<Vec<(Uuid, u64)>>,
}

impl Recorder {
    pub(crate) fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self { name, panics: false, last_versions: Mutex::default(), first: watch::Sender::default() })
    }

    pub(crate) fn panicking(name: &'static str) -> Arc<Self> {
        Arc::new(Self { name, panics: true, last_versions: Mutex::default(), first: watch::Sender::default() })
    }

    /// Waits until `count` different events have arrived.
    pub(crate) async fn wait_for(&self, count: usize) {
        let mut first = self.first.subscribe();
        let waited = tokio::time::timeout(LIMIT, first.wait_for(|first| first.len() >= count)).await;
        assert!(waited.is_ok(), "{} of {count} events arrived", self.first.borrow().len());
    }

    /// Asserts that the first occurrences are the published events, with each aggregate's in order.
    pub(crate) fn assert_exactly_once_in_order(&self, published: &[Arc<Envelope>]) {
        let mut first = self.first.borrow().clone();
        let mut expected: Vec<_> = published.iter().map(|event| (event.aggregate_id, event.version.get())).collect();
        first.sort_by_key(|(id, _)| *id);
        expected.sort_by_key(|(id, _)| *id);
        assert_eq!(first, expected);
    }
}

#[async_trait]
impl Subscription for Recorder {
    fn name(&self) -> &str {
        self.name
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &[AGGREGATE]
    }

    async fn deliver(&self, events: &Batch, _way: DeliverySource) -> Result<DeliveryCounts, DeliverError> {
        assert!(!self.panics, "intended by the test");
        let mut last_versions = self.last_versions.lock().unwrap();
        let mut new = Vec::new();
        for event in events {
            let (last, version) = (last_versions.entry(event.aggregate_id).or_default(), event.version.get());
            if version > *last {
                *last = version;
                new.push((event.aggregate_id, version));
            }
        }
        let applied = new.len();
        self.first.send_modify(|first| first.extend(new));
        Ok(DeliveryCounts { applied, duplicate: events.len() - applied, ..DeliveryCounts::default() })
    }
}
