//! Publishing.
//!
//! The problem: of a thousand events in flight one is refused, or the broker goes away, and what comes behind it must not
//! get ahead of it.
//!
//! The invariant: no event is on a topic unless all those before it, in the order they were given for its partition, are there
//! too. Sending again from the first unacknowledged one therefore repeats events but never turns two round. Kept by
//! idempotence (librdkafka's own retries keep the order) behind a first event that goes [alone](crate::topic_partitions), by making a
//! refused batch fatal, and by giving up the whole producer with everything that it hasn't sent when one event fails; the next
//! call makes a new one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use epoch::{
    bus::PublishError,
    envelope::{Batch, Envelope},
    message::{Frame, Message},
};
use epoch_registry::Framing;
use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer, PurgeConfig},
};
use tokio::sync::MutexGuard;

use crate::{
    client_log::Log,
    config::KafkaConfig,
    error::{Error, chain},
    health::lock,
    topic_partitions::Partitions,
};

/// How long to wait for room in the queue before the same record is tried again.
const QUEUE_FULL: Duration = Duration::from_millis(5);
/// How long to wait before the partitions of a topic that was created a moment ago are asked for again.
const NOT_YET: Duration = Duration::from_millis(20);

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
    topics: Mutex<HashMap<String, Arc<Partitions>>>,
    /// The turn of the call that opens partitions: a second first event must not go beside the first.
    opening: tokio::sync::Mutex<()>,
}

/// A topic that events go to, with its name spelled once.
struct Topic {
    aggregate: String,
    name: String,
    partitions: Arc<Partitions>,
}

/// An event that librdkafka has taken.
struct Queued {
    partitions: Arc<Partitions>,
    partition: u32,
    report: Report,
}

enum Report {
    Waiting(DeliveryFuture),
    Taken,
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
        // Kept until the last report is in: a first event without an answer is still alone.
        let mut turn = None;
        let mut result = self.queue_all(&generation, events, &mut queued, &mut turn).await;
        let mut acknowledged = 0;
        for (event, queued) in events.iter().zip(&mut queued) {
            if let Err(error) = self.report(event, queued).await {
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

    /// Queues the events as far as that is possible. Where the broker hasn't been heard yet, it waits for its word about the first
    /// event before it queues the second.
    async fn queue_all<'g>(
        &self,
        generation: &'g Arc<Generation>,
        events: &Batch,
        queued: &mut Vec<Queued>,
        turn: &mut Option<MutexGuard<'g, ()>>,
    ) -> Result<(), Error> {
        let mut topic: Option<Topic> = None;
        for event in events {
            let topic = match &mut topic {
                Some(topic) if topic.aggregate == *event.aggregate => topic,
                other => other.insert(self.topic(generation, event).await?),
            };
            let key = event.aggregate_id.to_string();
            let partition = topic.partitions.of(key.as_bytes());
            if turn.is_none() && !topic.partitions.is_open(partition) {
                let taken = generation.opening.lock().await;
                // Whoever had it before may have opened this one.
                *turn = (!topic.partitions.is_open(partition)).then_some(taken);
            }
            if !topic.partitions.is_open(partition) {
                let same = |queued: &&mut Queued| {
                    queued.partition == partition && Arc::ptr_eq(&queued.partitions, &topic.partitions)
                };
                if let Some(first) = queued.iter_mut().find(same) {
                    self.report(event, first).await?;
                }
            }
            let report = self.queue(generation, event, topic, partition).await?;
            let partitions = Arc::clone(&topic.partitions);
            queued.push(Queued { partitions, partition, report: Report::Waiting(report) });
        }
        Ok(())
    }

    /// The topic of an event, whose partitions are counted at this producer's first use of it.
    async fn topic(&self, generation: &Arc<Generation>, event: &Envelope) -> Result<Topic, Error> {
        let name = epoch::message::topic(&self.namespace, &event.aggregate);
        let known = lock(&generation.topics).get(&name).cloned();
        let partitions = match known {
            Some(partitions) => partitions,
            None => {
                let counted = Arc::new(Partitions::new(self.count_partitions(generation, &name).await?));
                Arc::clone(lock(&generation.topics).entry(name.clone()).or_insert(counted))
            }
        };
        Ok(Topic { aggregate: event.aggregate.to_string(), name, partitions })
    }

    async fn count_partitions(&self, generation: &Arc<Generation>, topic: &str) -> Result<usize, Error> {
        let start = Instant::now();
        loop {
            let (asked, name) = (Arc::clone(generation), topic.to_owned());
            let left = self.timeout.saturating_sub(start.elapsed());
            let counted = tokio::task::spawn_blocking(move || asked.count_partitions(&name, left)).await;
            let source = match counted.unwrap_or(Err(KafkaError::Canceled)) {
                Ok(count) => return Ok(count),
                Err(source) => source,
            };
            if start.elapsed() >= self.timeout || source.rdkafka_error_code() != Some(UNKNOWN_TOPIC) {
                return Err(Error::Partitions { topic: topic.to_owned(), source });
            }
            // It was created before: the broker will hear of it.
            tokio::time::sleep(NOT_YET).await;
        }
    }

    /// Puts an event into the producer's queue, waiting while that is full.
    async fn queue(
        &self,
        generation: &Generation,
        event: &Envelope,
        topic: &Topic,
        partition: u32,
    ) -> Result<DeliveryFuture, Error> {
        let frame = self.frame(&topic.name, event).await?;
        let message = Message::framed(event, &self.namespace, frame);
        let headers = OwnedHeaders::new_with_capacity(message.headers.len());
        let headers = message
            .headers
            .iter()
            .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
        let mut record = FutureRecord::to(&topic.name)
            .partition(i32::try_from(partition).unwrap_or(i32::MAX))
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
                Some(Err((source, _))) => return Err(Error::Enqueue { topic: topic.name.clone(), source }),
                None => return Err(Error::GivenUp { topic: topic.name.clone() }),
            }
        }
    }

    /// What stands before the event's payload. Who asks the registry has nothing of this event queued yet, so that the wait, or a
    /// failure, holds up what comes behind it and nothing else.
    async fn frame(&self, topic: &str, event: &Envelope) -> Result<Frame, Error> {
        let Some(framing) = &self.framing else { return Ok(Frame::Fingerprint(event.schema)) };
        let frame = framing.frame(topic, event.schema).await;
        frame.map_err(|source| Error::Frame { topic: topic.to_owned(), source })
    }

    /// Waits for the broker's word about an event; says the same when asked again.
    async fn report(&self, event: &Envelope, queued: &mut Queued) -> Result<(), Error> {
        let Report::Waiting(report) = &mut queued.report else { return Ok(()) };
        let topic = || epoch::message::topic(&self.namespace, &event.aggregate);
        match tokio::time::timeout(self.timeout, report).await {
            Ok(Ok(Ok(delivery))) => {
                let (partition, offset) = (delivery.partition, delivery.offset);
                tracing::trace!(aggregate = %event.aggregate, id = %event.aggregate_id, version = %event.version, partition, offset, "published");
                queued.partitions.heard(queued.partition);
                queued.report = Report::Taken;
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
        let generation = Arc::new(Generation {
            producer: Some(producer),
            given_up: RwLock::new(false),
            topics: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        });
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

/// What a topic is whose partitions the broker hasn't heard of.
const UNKNOWN_TOPIC: RDKafkaErrorCode = RDKafkaErrorCode::UnknownTopicOrPartition;

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

    /// Asks the broker and waits for it.
    fn count_partitions(&self, topic: &str, timeout: Duration) -> Result<usize, KafkaError> {
        let Some(producer) = &self.producer else { return Err(KafkaError::Canceled) };
        let metadata = producer.client().fetch_metadata(Some(topic), timeout)?;
        match metadata.topics().first().map_or(0, |topic| topic.partitions().len()) {
            0 => Err(KafkaError::MetadataFetch(UNKNOWN_TOPIC)),
            count => Ok(count),
        }
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

#[cfg(test)]
mod tests {
    use std::{borrow::Cow, sync::Arc, time::Duration};

    use epoch::{
        CommandContext,
        context::Metadata,
        envelope::Envelope,
        event::SchemaId,
        timestamp::Timestamp,
        version::{Position, Version},
    };
    use futures::future::join_all;
    use rdkafka::{mocking::MockCluster, producer::Producer};
    use uuid::Uuid;

    use super::Publisher;
    use crate::config::KafkaConfig;

    fn event(id: Uuid, version: u64) -> Arc<Envelope> {
        Arc::new(Envelope {
            event_id: Uuid::from_u128(u128::from(version)),
            aggregate: Cow::Borrowed("file"),
            aggregate_id: id,
            version: Version::new(version),
            position: Position::new(version),
            event_name: Cow::Borrowed("Happened"),
            schema: SchemaId::new(7),
            payload: vec![1].into(),
            occurred_at: Timestamp::from_millis(1),
            recorded_at: Timestamp::from_millis(2),
            metadata: Metadata::from(&CommandContext::new()),
        })
    }

    /// The mock cluster is slow, so that there is time to see what is on its way before its first answer.
    #[tokio::test]
    async fn nothing_goes_beside_the_first_event_of_a_partition() {
        let cluster = MockCluster::new(1).unwrap();
        let config = KafkaConfig { partitions: 2, ..KafkaConfig::new(cluster.bootstrap_servers()) };
        cluster.create_topic(&epoch::message::topic(&config.namespace, "file"), 2, 1).unwrap();
        let publisher = Publisher::new(&config, None).unwrap();
        let generation = publisher.current().unwrap();
        let events: Vec<_> = (1..=60_u64).map(|n| event(Uuid::from_u128(u128::from(n % 20)), n.div_ceil(20))).collect();
        let topic = publisher.topic(&generation, &events[0]).await.unwrap();
        cluster.broker_round_trip_time(-1, Duration::from_millis(200)).unwrap();

        let on_their_way = || generation.producer.as_ref().map_or(0, |producer| producer.in_flight_count());
        let (mut most, mut later) = (0, 0);
        let watching = async {
            loop {
                match (0..2).filter(|partition| topic.partitions.is_open(*partition)).count() {
                    0 => most = most.max(on_their_way()),
                    2 => later = later.max(on_their_way()),
                    _ => {}
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        // Several calls at once, most of a single event.
        let (alone, together) = events.split_at(30);
        let calls = alone.chunks(1).chain([together]).map(|events| publisher.send(events));
        tokio::select! {
            sent = join_all(calls) => assert!(sent.iter().all(|(_, result)| result.is_ok()), "{sent:?}"),
            () = watching => {}
        }
        assert!((1..=2).contains(&most), "{most} events were on their way to two partitions before the first answer");
        assert!(later > 10, "afterwards they go together: {later}");
    }
}
