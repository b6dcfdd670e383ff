//! Test brokers, configurations and subscriptions.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};

use async_trait::async_trait;
pub(crate) use epoch::testkit::{
    bus::kit::{ConsumerTask, LIMIT, event, events, ids, retry_later, wait_until},
    metrics::value as metric,
};
use epoch::{
    envelope::{Batch, Envelope},
    gate::DeliverySource,
    handler::{DeliverError, DeliveryCounts, Subscription},
    memory::MemorySubscription,
    testkit::{bus::EventRecorder, metrics},
};
use epoch_kafka::{KafkaBus, KafkaConfig};
use futures::FutureExt;
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
    mocking::MockCluster,
    producer::DefaultProducerContext,
};
use tokio::sync::Semaphore;
use uuid::Uuid;

pub(crate) type Mock = MockCluster<'static, DefaultProducerContext>;
type Request = Box<dyn FnOnce(&Mock) + Send>;

/// librdkafka's mock cluster. It is not `Send`, so it runs on its own thread and receives requests.
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

    pub(crate) fn run(&self, request: impl FnOnce(&Mock) + Send + 'static) {
        let (done, finished) = mpsc::channel();
        let request = Box::new(move |cluster: &Mock| {
            request(cluster);
            done.send(()).unwrap();
        });
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).send(request).unwrap();
        finished.recv().unwrap();
    }

    /// Creates topics directly, because the mock cluster does not support clients' requests for it. Existing topics are kept.
    pub(crate) fn create_topics(&self, config: &KafkaConfig, aggregates: &[&str]) {
        for aggregate in aggregates {
            let (topic, partitions) = (topic(config, aggregate), config.partitions);
            self.run(move |cluster| drop(cluster.create_topic(&topic, partitions, 1)));
        }
    }
}

pub(crate) fn topic(config: &KafkaConfig, aggregate: &str) -> String {
    epoch::message::topic(&config.namespace, aggregate)
}

/// Returns the mock cluster that all tests share, or `None` when there is a real broker.
pub(crate) fn shared_mock() -> Option<&'static MockBroker> {
    static MOCK: OnceLock<Option<MockBroker>> = OnceLock::new();
    MOCK.get_or_init(|| std::env::var("EPOCH_TEST_KAFKA").is_err().then(MockBroker::start)).as_ref()
}

/// Returns settings with topics and groups that belong to one test.
pub(crate) fn private(servers: impl Into<String>) -> KafkaConfig {
    metrics::record();
    let _ = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).try_init();
    let namespace = format!("t{}", Uuid::now_v7().simple());
    KafkaConfig { group_prefix: namespace.clone(), namespace, ..KafkaConfig::new(servers) }
}

/// Returns settings for the broker of this test run.
pub(crate) fn config() -> KafkaConfig {
    match shared_mock() {
        Some(mock) => private(&mock.servers),
        None => private(std::env::var("EPOCH_TEST_KAFKA").unwrap()),
    }
}

/// Connects a bus to the broker of this test run and creates the topics of these aggregates.
pub(crate) async fn bus_with(config: &KafkaConfig, aggregates: &[&str]) -> Arc<KafkaBus> {
    if let Some(mock) = shared_mock() {
        mock.create_topics(config, aggregates);
    }
    let bus = KafkaBus::connect(config.clone()).unwrap();
    bus.ensure_topics(aggregates).await.unwrap();
    Arc::new(bus)
}

/// Ids and versions of events, in order of arrival.
pub(crate) type EventLog = Vec<(Uuid, u64)>;

pub(crate) type Gate = MemorySubscription<EventRecorder>;

pub(crate) fn gate(name: &'static str, aggregates: &'static [&'static str]) -> Arc<Gate> {
    Arc::new(MemorySubscription::new(EventRecorder::new(name, aggregates)))
}

/// Returns the number of events that the handler has received.
pub(crate) fn count(gate: &Gate) -> usize {
    gate.handler().count()
}

pub(crate) fn received(gate: &Gate) -> EventLog {
    gate.handler().events().iter().map(|event| (event.aggregate_id, event.version.get())).collect()
}

/// Waits until the handler has received `count` events.
pub(crate) async fn wait_for_events(gate: &Gate, count: usize) {
    assert!(gate.handler().wait_for(count).await, "{} of {count} events arrived", self::count(gate));
}

/// Asserts that each aggregate's events were received once, in order, without gaps.
pub(crate) fn assert_exactly_once(received: &EventLog, published: &[Arc<Envelope>]) {
    assert_eq!(received.len(), published.len(), "number of events");
    let mut next = std::collections::HashMap::new();
    for (id, version) in received {
        let expected = next.entry(*id).or_insert(1);
        assert_eq!(version, expected, "the next version of {id}");
        *expected += 1;
    }
}

/// A subscription whose `deliver` wraps that of a gate.
pub(crate) struct WrappedGate<F> {
    pub(crate) gate: Arc<Gate>,
    pub(crate) deliver: F,
}

#[async_trait]
impl<F> Subscription for WrappedGate<F>
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

pub(crate) fn wrap<F>(gate: &Arc<Gate>, deliver: F) -> Arc<WrappedGate<F>>
where
    F: for<'a> Fn(&'a Gate, &'a Batch) -> futures::future::BoxFuture<'a, Result<DeliveryCounts, DeliverError>>,
{
    Arc::new(WrappedGate { gate: Arc::clone(gate), deliver })
}

/// Returns a subscription that takes one of the `permits` before each batch.
pub(crate) fn wrap_with_permits(gate: &Arc<Gate>, permits: &Arc<Semaphore>) -> Arc<dyn Subscription> {
    let permits = Arc::clone(permits);
    wrap(gate, move |gate, events| {
        let permits = Arc::clone(&permits);
        async move {
            permits.acquire().await.unwrap().forget();
            gate.deliver(events, DeliverySource::Bus).await
        }
        .boxed()
    })
}

/// Returns a consumer that reads a topic from its first record, outside of the bus.
pub(crate) fn read_from_start(config: &KafkaConfig, topic: &str) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &config.bootstrap_servers)
        .set("group.id", format!("raw-{}", Uuid::now_v7()))
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    consumer
}
