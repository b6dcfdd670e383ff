//! Publishing.
//!
//! The problem: of a thousand events in flight one is refused, or the broker goes away, and what comes behind it must not
//! get ahead of it.
//!
//! The invariant: no event is on a topic unless all those before it, in the order they were given for its partition, are there
//! too. Sending again from the first unacknowledged one therefore repeats events but never turns two round. Kept by
//! idempotence (librdkafka's own retries keep the order), by making a refused batch fatal, and by giving up the whole producer
//! with everything that it hasn't sent when one event fails; the next call makes a new one.

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use epoch::{
    bus::PublishError,
    envelope::{Batch, Envelope},
    message::{Frame, Message},
};
use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer, PurgeConfig},
};

use crate::{
    client::Log,
    config::KafkaConfig,
    error::{Error, chain},
    health::lock,
    registry::Framing,
};

/// How long to wait for room in the queue before the same record is tried again.
const QUEUE_FULL: Duration = Duration::from_millis(5);

pub(crate) struct Publisher {
    config: ClientConfig,
    namespace: String,
    timeout: Duration,
    framing: Option<Arc<Framing>>,
    current: Mutex<Option<Arc<Generation>>>,
}

/// A producer from its making to its first failure.
struct Generation {
    /// Taken out only when dropped.
    producer: Option<FutureProducer<Log>>,
    /// Nothing may be queued once this is set. Queueing holds it for reading, giving up for writing.
    given_up: RwLock<bool>,
}

impl Publisher {
    pub(crate) fn new(config: &KafkaConfig, framing: Option<Arc<Framing>>) -> Result<Self, Error> {
        let publisher = Self {
            config: config.producer(),
            namespace: config.namespace.clone(),
            timeout: config.delivery_timeout,
            framing,
            current: Mutex::default(),
        };
        publisher.current()?;
        Ok(publisher)
    }

    /// Publishes in order and reports how many of the first ones are safe.
    pub(crate) async fn publish(&self, events: &Batch) -> Result<(), PublishError> {
        let (acknowledged, result) = self.send(events).await;
        let same = |one: &Arc<Envelope>, next: &Arc<Envelope>| one.aggregate == next.aggregate;
        for run in events.get(..acknowledged).unwrap_or_default().chunk_by(same) {
            if let Some(event) = run.first() {
                metrics::counter!("epoch_bus_published_total", "aggregate" => event.aggregate.to_string())
                    .increment(run.len() as u64);
            }
        }
        result.map_err(|error| PublishError { acknowledged, offered: events.len(), detail: chain(&error) })
    }

    async fn send(&self, events: &Batch) -> (usize, Result<(), Error>) {
        let generation = match self.current() {
            Ok(generation) => generation,
            Err(error) => return (0, Err(error)),
        };
        let mut queued = Vec::with_capacity(events.len());
        let mut result = Ok(());
        for event in events {
            match self.queue(&generation, event).await {
                Ok(report) => queued.push(report),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        let mut acknowledged = 0;
        for (event, report) in events.iter().zip(queued) {
            if let Err(error) = self.report(event, report).await {
                result = Err(error);
                self.give_up(&generation).await;
                break;
            }
            acknowledged += 1;
        }
        if generation.is_fatal() {
            self.give_up(&generation).await;
        }
        (acknowledged, result)
    }

    /// Puts an event into the producer's queue, waiting while that is full.
    async fn queue(&self, generation: &Generation, event: &Envelope) -> Result<DeliveryFuture, Error> {
        let topic = epoch::message::topic(&self.namespace, &event.aggregate);
        let frame = self.frame(&topic, event).await?;
        let message = Message::framed(event, &self.namespace, frame);
        let headers = OwnedHeaders::new_with_capacity(message.headers.len());
        let headers = message
            .headers
            .iter()
            .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
        let mut record = FutureRecord::to(&topic)
            .key(&message.key)
            .payload(&message.body[..])
            .timestamp(event.occurred_at.as_millis())
            .headers(headers);
        let start = Instant::now();
        loop {
            match generation.queue(record) {
                Some(Ok(report)) => return Ok(report),
                Some(Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), same)))
                    if start.elapsed() < self.timeout =>
                {
                    record = same;
                    tokio::time::sleep(QUEUE_FULL).await;
                }
                Some(Err((source, _))) => return Err(Error::Enqueue { topic, source }),
                None => return Err(Error::GivenUp { topic }),
            }
        }
    }

    /// What stands before the event's payload. Who asks the registry has nothing of this event queued yet, so that the wait, or a
    /// failure, holds up what comes behind it and nothing else.
    async fn frame(&self, topic: &str, event: &Envelope) -> Result<Frame, Error> {
        let Some(framing) = &self.framing else { return Ok(Frame::Fingerprint(event.schema)) };
        let number = framing.number(topic, event.schema).await;
        number.map(Frame::Registered).map_err(|source| Error::Frame { topic: topic.to_owned(), source })
    }

    /// Waits for the broker's word about one event.
    async fn report(&self, event: &Envelope, report: DeliveryFuture) -> Result<(), Error> {
        let topic = || epoch::message::topic(&self.namespace, &event.aggregate);
        match tokio::time::timeout(self.timeout, report).await {
            Ok(Ok(Ok(delivery))) => {
                let (partition, offset) = (delivery.partition, delivery.offset);
                tracing::trace!(aggregate = %event.aggregate, id = %event.aggregate_id, version = %event.version, partition, offset, "published");
                Ok(())
            }
            Ok(Ok(Err((source, record)))) => {
                let partition = rdkafka::Message::partition(&record);
                Err(Error::Delivery { topic: topic(), partition, source })
            }
            Ok(Err(_)) => Err(Error::GivenUp { topic: topic() }),
            Err(_) => Err(Error::Silence { topic: topic(), waited: self.timeout }),
        }
    }

    /// The producer in use, or a new one.
    fn current(&self) -> Result<Arc<Generation>, Error> {
        let mut current = lock(&self.current);
        if let Some(generation) = &*current {
            return Ok(Arc::clone(generation));
        }
        let log = Log { client: "producer".to_owned() };
        let producer = self.config.create_with_context(log).map_err(|source| Error::Settings { source })?;
        let generation = Arc::new(Generation { producer: Some(producer), given_up: RwLock::new(false) });
        *current = Some(Arc::clone(&generation));
        Ok(generation)
    }

    /// Makes sure that nothing more of this producer is sent.
    async fn give_up(&self, generation: &Arc<Generation>) {
        {
            let mut current = lock(&self.current);
            if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, generation)) {
                *current = None;
                tracing::warn!("producer given up, the next publication makes a new one");
                metrics::counter!("epoch_bus_producers_given_up_total").increment(1);
            }
        }
        let generation = Arc::clone(generation);
        // Asks the threads of all brokers and waits for them. If that fails, so has the process.
        let _ = tokio::task::spawn_blocking(move || generation.purge()).await;
    }
}

type Record<'a> = FutureRecord<'a, String, [u8]>;

impl Generation {
    #[allow(clippy::result_large_err, reason = "the record comes back in it")]
    fn queue<'a>(&self, record: Record<'a>) -> Option<Result<DeliveryFuture, (KafkaError, Record<'a>)>> {
        let given_up = self.given_up.read().unwrap_or_else(PoisonError::into_inner);
        if *given_up {
            return None;
        }
        self.producer.as_ref().map(|producer| producer.send_result(record))
    }

    fn is_fatal(&self) -> bool {
        self.producer.as_ref().is_some_and(|producer| producer.client().fatal_error().is_some())
    }

    fn purge(&self) {
        let mut given_up = self.given_up.write().unwrap_or_else(PoisonError::into_inner);
        *given_up = true;
        if let Some(producer) = &self.producer {
            producer.purge(PurgeConfig::default().queue().inflight());
        }
    }
}

impl Drop for Generation {
    /// Its end waits for its threads, which no task may do.
    fn drop(&mut self) {
        let producer = self.producer.take();
        // Without a thread it is dropped here and now.
        let _ = std::thread::Builder::new().spawn(move || drop(producer));
    }
}
