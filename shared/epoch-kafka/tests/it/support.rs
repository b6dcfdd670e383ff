//! Brokers, events and subscriptions for tests.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};

use async_trait::async_trait;
pub(crate) use epoch::testkit::bus::kit::{ConsumerTask, LIMIT, event, events, ids, retry_later, wait_until};
pub(crate) use epoch::testkit::metrics::value as metric;
use epoch::{
    envelope::{Batch, Envelope},
    gate::DeliverySource,
    handler::{DeliverError, DeliveryCounts, EventHandler, Subscription},
    memory::MemorySubscription,
    testkit::metrics,
};
use epoch_kafka::{KafkaBus, KafkaConfig};
use rdkafka::{mocking::MockCluster, producer::DefaultProducerContext};
use tokio::sync::watch;
use uuid::Uuid;

pub(crate) type Mock = MockCluster<'static, DefaultProducerContext>;
type Request = Box<dyn FnOnce(&Mock) + Send>;

/// librdkafka's mock cluster, on the thread it must stay on.
pub(crate) struct MockBroker {
    pub(crate) servers: String,
    requests: Mutex<mpsc::Sender<Request>>,
}

impl MockBroker {
    pub(crate) fn start() -> Self {
        let (requests, received) = mpsc::channel::<Request>();
        let (ready, servers) = mpsc::channel();
        std::thread::spawn(move || {
            let cluster = MockCluster::new(1).unwrap();
            ready.send(cluster.bootstrap_servers()).unwrap();
            received.into_iter().for_each(|request| request(&cluster));
        });
        Self { servers: servers.recv().unwrap(), requests: Mutex::new(requests) }
    }

    pub(crate) fn ask(&self, request: impl FnOnce(&Mock) + Send + 'static) {
        let (done, answered) = mpsc::channel();
        let request = Box::new(move |cluster: &Mock| {
            request(cluster);
            done.send(()).unwrap();
        });
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).send(request).unwrap();
        answered.recv().unwrap();
    }

    /// It doesn't answer requests to create topics. That one exists is as good.
    pub(crate) fn create_topics(&self, config: &KafkaConfig, aggregates: &[&str]) {
        for aggregate in aggregates {
            let (topic, partitions) = (topic(config, aggregate), config.partitions);
            self.ask(move |cluster| drop(cluster.create_topic(&topic, partitions, 1)));
        }
    }
}

pub(crate) fn topic(config: &KafkaConfig, aggregate: &str) -> String {
    epoch::message::topic(&config.namespace, aggregate)
}

/// The mock cluster that all tests share; `None` when there is a real broker.
pub(crate) fn shared_mock() -> Option<&'static MockBroker> {
    static MOCK: OnceLock<Option<MockBroker>> = OnceLock::new();
    MOCK.get_or_init(|| std::env::var("EPOCH_TEST_KAFKA").is_err().then(MockBroker::start)).as_ref()
}

/// Settings for topics and groups that nobody else uses.
pub(crate) fn private(servers: impl Into<String>) -> KafkaConfig {
    metrics::record();
    let _ = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).try_init();
    let namespace = format!("t{}", Uuid::now_v7().simple());
    KafkaConfig { group_prefix: namespace.clone(), namespace, ..KafkaConfig::new(servers) }
}

/// Settings for the broker of this run.
pub(crate) fn config() -> KafkaConfig {
    match shared_mock() {
        Some(mock) => private(&mock.servers),
        None => private(std::env::var("EPOCH_TEST_KAFKA").unwrap()),
    }
}

/// A bus on the broker of this run, with these topics.
pub(crate) async fn bus_with(config: &KafkaConfig, aggregates: &[&str]) -> Arc<KafkaBus> {
    if let Some(mock) = shared_mock() {
        mock.create_topics(config, aggregates);
    }
    let bus = KafkaBus::connect(config.clone()).unwrap();
    bus.ensure_topics(aggregates).await.unwrap();
    Arc::new(bus)
}

/// What a handler has seen, in order.
pub(crate) type Seen = Vec<(Uuid, u64)>;

/// A handler that writes down what it sees.
pub(crate) struct Recorder {
    name: &'static str,
    aggregates: &'static [&'static str],
    seen: watch::Sender<Seen>,
}

#[async_trait]
impl EventHandler<()> for Recorder {
    type Error = std::convert::Infallible;

    fn name(&self) -> &'static str {
        self.name
    }

    fn aggregates(&self) -> &'static [&'static str] {
        self.aggregates
    }

    async fn handle(&self, (): &mut (), events: &Batch) -> Result<(), Self::Error> {
        self.seen.send_modify(|seen| {
            seen.extend(events.iter().map(|event| (event.aggregate_id, event.version.get())));
        });
        Ok(())
    }
}

pub(crate) type Gate = MemorySubscription<Recorder>;

pub(crate) fn gate(name: &'static str, aggregates: &'static [&'static str]) -> Arc<Gate> {
    Arc::new(MemorySubscription::new(Recorder { name, aggregates, seen: watch::Sender::default() }))
}

/// How many events the handler has seen.
pub(crate) fn count(gate: &Gate) -> usize {
    gate.handler().seen.borrow().len()
}

pub(crate) fn seen(gate: &Gate) -> Seen {
    gate.handler().seen.borrow().clone()
}

/// Waits until the handler has seen so many events.
pub(crate) async fn wait_for_events(gate: &Gate, count: usize) {
    let mut seen = gate.handler().seen.subscribe();
    let waited = tokio::time::timeout(LIMIT, seen.wait_for(|seen| seen.len() >= count)).await;
    assert!(waited.is_ok(), "{} of {count} events came", self::count(gate));
}

/// Every aggregate's events once, in order, none missing.
pub(crate) fn assert_exactly_once(seen: &Seen, published: &[Arc<Envelope>]) {
    assert_eq!(seen.len(), published.len(), "number of events");
    let mut next = std::collections::HashMap::new();
    for (id, version) in seen {
        let expected = next.entry(*id).or_insert(1);
        assert_eq!(version, expected, "the next version of {id}");
        *expected += 1;
    }
}

/// A subscription with something before or after its gate.
pub(crate) struct Around<F> {
    pub(crate) gate: Arc<Gate>,
    pub(crate) deliver: F,
}

#[async_trait]
impl<F> Subscription for Around<F>
where
    F: for<'a> Fn(&'a Gate, &'a Batch) -> futures::future::BoxFuture<'a, Result<DeliveryCounts, DeliverError>>
        + Send
        + Sync
        + 'static,
{
    fn name(&self) -> &str {
        self.gate.name()
    }

    fn aggregates(&self) -> &'static [&'static str] {
        self.gate.aggregates()
    }

    async fn deliver(&self, events: &Batch, way: DeliverySource) -> Result<DeliveryCounts, DeliverError> {
        assert_eq!(way, DeliverySource::Bus);
        (self.deliver)(&self.gate, events).await
    }
}

pub(crate) fn around<F>(gate: &Arc<Gate>, deliver: F) -> Arc<Around<F>>
where
    F: for<'a> Fn(&'a Gate, &'a Batch) -> futures::future::BoxFuture<'a, Result<DeliveryCounts, DeliverError>>,
{
    Arc::new(Around { gate: Arc::clone(gate), deliver })
}
