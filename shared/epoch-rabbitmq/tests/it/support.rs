//! Brokers, events, subscriptions and metrics for tests.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
pub(crate) use epoch::testkit::bus::kit::{ConsumerTask, LIMIT, ids, wait_until};
pub(crate) use epoch::testkit::metrics::value as metric;
use epoch::{
    bus::Bus,
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
/// Settings for streams and groups that nobody else uses, on the broker at `url`.
pub(crate) fn private(url: impl Into<String>) -> RabbitConfig {
    metrics::record();
    let _ = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).try_init();
    let namespace = format!("t{}", Uuid::now_v7().simple());
    RabbitConfig { group_prefix: namespace.clone(), namespace, ..RabbitConfig::new(url) }
}

/// The same on the broker of this run; `None` when there is none.
pub(crate) fn config() -> Option<RabbitConfig> {
    let url = std::env::var("EPOCH_TEST_AMQP").ok();
    if url.is_none() {
        eprintln!("left out: EPOCH_TEST_AMQP names no broker");
    }
    url.map(private)
}

pub(crate) fn bus(config: &RabbitConfig) -> Arc<RabbitBus> {
    Arc::new(RabbitBus::new(config.clone()).unwrap())
}

/// A queue that is no stream.
pub(crate) async fn declare_classic(url: &str, name: &str) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name.into(), options, FieldTable::default()).await.unwrap();
}

/// Some versions of all these aggregates, as writers that take turns would append them.
pub(crate) fn events(ids: &[Uuid], versions: std::ops::RangeInclusive<u64>) -> Vec<Arc<Envelope>> {
    kit::events(AGGREGATE, ids, versions)
}

/// Publishes as a relay does: what wasn't taken comes again.
pub(crate) async fn publish(bus: &Arc<RabbitBus>, batch: &Batch) {
    let (start, mut left) = (Instant::now(), batch);
    while let Err(error) = bus.publish(left).await {
        assert!(start.elapsed() < LIMIT, "not published: {error}");
        left = &left[error.acknowledged..];
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A subscription without a gate that remembers first appearances, in the order in which the bus brings them.
pub(crate) struct Recorder {
    name: &'static str,
    panics: bool,
    seen: Mutex<HashMap<Uuid, u64>>,
    first: watch::Sender<Vec<(Uuid, u64)>>,
}

impl Recorder {
    pub(crate) fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self { name, panics: false, seen: Mutex::default(), first: watch::Sender::default() })
    }

    pub(crate) fn panicking(name: &'static str) -> Arc<Self> {
        Arc::new(Self { name, panics: true, seen: Mutex::default(), first: watch::Sender::default() })
    }

    /// Waits until so many different events came.
    pub(crate) async fn wait_for(&self, count: usize) {
        let mut first = self.first.subscribe();
        let waited = tokio::time::timeout(LIMIT, first.wait_for(|first| first.len() >= count)).await;
        assert!(waited.is_ok(), "{} of {count} events came", self.first.borrow().len());
    }

    /// First appearances are everything that was published, each aggregate's in order.
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
        assert!(!self.panics, "panics as the test wants it");
        let mut seen = self.seen.lock().unwrap();
        let mut new = Vec::new();
        for event in events {
            let (last, version) = (seen.entry(event.aggregate_id).or_default(), event.version.get());
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
