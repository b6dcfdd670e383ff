//! Publishing of events in order.
//!
//! An event reaches its topic only after all earlier events of its partition. With many events in flight, one of them may be refused
//! or the broker may become unreachable; the events after it must not overtake it. Three measures ensure that:
//!
//! - Idempotence keeps the order through librdkafka's own retries, once the first event of a partition was sent
//!   [alone](crate::topic_partitions).
//! - A refused batch is a fatal error of the producer.
//! - When one event fails, the whole producer is closed and everything that it has not sent is purged. The next publication creates
//!   a new producer.
//!
//! A repetition from the first unacknowledged event may duplicate events but never reorders them.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use epoch::{
    bus::{PublishError, count_published},
    envelope::{Batch, Envelope},
    error_chain,
    message::{Frame, Message},
};
use epoch_registry::Framing;
use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{DeliveryFuture, FutureRecord},
};
use tokio::sync::MutexGuard;

use crate::{
    config::KafkaConfig,
    error::Error,
    lock::lock,
    producer::{SharedProducer, UNKNOWN_TOPIC},
    topic_partitions::TopicPartitions,
};

/// The wait before another attempt to enqueue a record into a full queue.
const QUEUE_FULL: Duration = Duration::from_millis(5);
/// The wait before a topic that was just created is looked up again.
const UNKNOWN_TOPIC_RETRY: Duration = Duration::from_millis(20);

pub(crate) struct Publisher {
    config: ClientConfig,
    namespace: String,
    timeout: Duration,
    framing: Option<Arc<Framing>>,
    current: Mutex<Option<Arc<SharedProducer>>>,
}

/// The topic of an aggregate.
struct Topic {
    aggregate: String,
    name: String,
    partitions: Arc<TopicPartitions>,
}

/// An event in librdkafka's queue or in flight.
struct QueuedEvent {
    partitions: Arc<TopicPartitions>,
    partition: u32,
    acknowledgement: Acknowledgement,
}

enum Acknowledgement {
    Pending(DeliveryFuture),
    Received,
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

    /// Publishes the events in order. The error counts the acknowledged events at the beginning of the batch.
    pub(crate) async fn publish(&self, events: &Batch) -> Result<(), PublishError> {
        let (acknowledged, result) = self.send(events).await;
        count_published(events.get(..acknowledged).unwrap_or_default());
        result.map_err(|error| PublishError { acknowledged, offered: events.len(), detail: error_chain(&error) })
    }

    async fn send(&self, events: &Batch) -> (usize, Result<(), Error>) {
        let producer = match self.current() {
            Ok(producer) => producer,
            Err(error) => return (0, Err(error)),
        };
        let mut queued = Vec::with_capacity(events.len());
        // Held until the last acknowledgement: the first event of a partition must stay alone until then.
        let mut opening = None;
        let mut result = self.enqueue_all(&producer, events, &mut queued, &mut opening).await;
        let mut acknowledged = 0;
        for (event, queued) in events.iter().zip(&mut queued) {
            if let Err(error) = self.wait_for_acknowledgement(event, queued).await {
                result = Err(error);
                self.close(&producer).await;
                break;
            }
            acknowledged += 1;
        }
        if producer.is_fatal() {
            self.close(&producer).await;
        }
        (acknowledged, result)
    }

    /// Enqueues the events until one fails. In a closed partition, the second event waits for the acknowledgement of the first.
    async fn enqueue_all<'p>(
        &self,
        producer: &'p Arc<SharedProducer>,
        events: &Batch,
        queued: &mut Vec<QueuedEvent>,
        opening: &mut Option<MutexGuard<'p, ()>>,
    ) -> Result<(), Error> {
        let mut topic: Option<Topic> = None;
        for event in events {
            let topic = match &mut topic {
                Some(topic) if topic.aggregate == *event.aggregate => topic,
                other => other.insert(self.topic(producer, event).await?),
            };
            let key = event.aggregate_id.to_string();
            let partition = topic.partitions.of(key.as_bytes());
            if opening.is_none() && !topic.partitions.is_open(partition) {
                let guard = producer.opening.lock().await;
                // The previous holder of the lock may have opened this partition.
                *opening = (!topic.partitions.is_open(partition)).then_some(guard);
            }
            if !topic.partitions.is_open(partition) {
                let same_partition = |queued: &&mut QueuedEvent| {
                    queued.partition == partition && Arc::ptr_eq(&queued.partitions, &topic.partitions)
                };
                if let Some(first) = queued.iter_mut().find(same_partition) {
                    self.wait_for_acknowledgement(event, first).await?;
                }
            }
            let acknowledgement = Acknowledgement::Pending(self.enqueue(producer, event, topic, partition).await?);
            queued.push(QueuedEvent { partitions: Arc::clone(&topic.partitions), partition, acknowledgement });
        }
        Ok(())
    }

    /// Returns the topic of an event. Its partitions are counted at the producer's first use of the topic.
    async fn topic(&self, producer: &Arc<SharedProducer>, event: &Envelope) -> Result<Topic, Error> {
        let name = epoch::message::topic(&self.namespace, &event.aggregate);
        let partitions = match producer.partitions(&name) {
            Some(partitions) => partitions,
            None => {
                let counted = TopicPartitions::new(self.count_partitions(producer, &name).await?);
                producer.insert_partitions(&name, counted)
            }
        };
        Ok(Topic { aggregate: event.aggregate.to_string(), name, partitions })
    }

    async fn count_partitions(&self, producer: &Arc<SharedProducer>, topic: &str) -> Result<usize, Error> {
        let start = Instant::now();
        loop {
            let (producer, name) = (Arc::clone(producer), topic.to_owned());
            let remaining = self.timeout.saturating_sub(start.elapsed());
            let counted = tokio::task::spawn_blocking(move || producer.count_partitions(&name, remaining)).await;
            let source = match counted.unwrap_or(Err(KafkaError::Canceled)) {
                Ok(count) => return Ok(count),
                Err(source) => source,
            };
            if start.elapsed() >= self.timeout || source.rdkafka_error_code() != Some(UNKNOWN_TOPIC) {
                return Err(Error::Partitions { topic: topic.to_owned(), source });
            }
            // The topic exists, and this broker will learn of it soon.
            tokio::time::sleep(UNKNOWN_TOPIC_RETRY).await;
        }
    }

    /// Enqueues an event, and waits while the producer's queue is full.
    async fn enqueue(
        &self,
        producer: &SharedProducer,
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
            match producer.enqueue(record) {
                Some(Ok(acknowledgement)) => return Ok(acknowledgement),
                Some(Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent)))
                    if start.elapsed() < self.timeout =>
                {
                    record = unsent;
                    tokio::time::sleep(QUEUE_FULL).await;
                }
                Some(Err((source, _))) => return Err(Error::Enqueue { topic: topic.name.clone(), source }),
                None => return Err(Error::ProducerClosed { topic: topic.name.clone() }),
            }
        }
    }

    /// Returns the frame that precedes the event's payload.
    ///
    /// The registry is asked before the event is enqueued, so a wait or a failure affects only this event and later ones.
    async fn frame(&self, topic: &str, event: &Envelope) -> Result<Frame, Error> {
        let Some(framing) = &self.framing else { return Ok(Frame::Fingerprint(event.schema)) };
        let frame = framing.frame(topic, event.schema).await;
        frame.map_err(|source| Error::Frame { topic: topic.to_owned(), source })
    }

    /// Waits until the broker has acknowledged an event. May be called again after success.
    async fn wait_for_acknowledgement(&self, event: &Envelope, queued: &mut QueuedEvent) -> Result<(), Error> {
        let Acknowledgement::Pending(acknowledgement) = &mut queued.acknowledgement else { return Ok(()) };
        let topic = || epoch::message::topic(&self.namespace, &event.aggregate);
        match tokio::time::timeout(self.timeout, acknowledgement).await {
            Ok(Ok(Ok(delivery))) => {
                let (partition, offset) = (delivery.partition, delivery.offset);
                tracing::trace!(aggregate = %event.aggregate, id = %event.aggregate_id, version = %event.version, partition, offset, "published");
                queued.partitions.acknowledged(queued.partition);
                queued.acknowledgement = Acknowledgement::Received;
                Ok(())
            }
            Ok(Ok(Err((source, record)))) => {
                let partition = rdkafka::Message::partition(&record);
                Err(Error::Delivery { topic: topic(), partition, source })
            }
            Ok(Err(_)) => Err(Error::ProducerClosed { topic: topic() }),
            Err(_) => Err(Error::DeliveryTimeout { topic: topic(), waited: self.timeout }),
        }
    }

    /// Returns the producer in use, or creates one.
    fn current(&self) -> Result<Arc<SharedProducer>, Error> {
        let mut current = lock(&self.current);
        if let Some(producer) = &*current {
            return Ok(Arc::clone(producer));
        }
        let producer = Arc::new(SharedProducer::new(&self.config)?);
        *current = Some(Arc::clone(&producer));
        Ok(producer)
    }

    /// Closes a producer that failed, so that it sends nothing more.
    async fn close(&self, producer: &Arc<SharedProducer>) {
        {
            let mut current = lock(&self.current);
            if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, producer)) {
                *current = None;
                tracing::warn!("producer closed after a failure; the next publication creates a new one");
                metrics::counter!("epoch_bus_producers_given_up_total").increment(1);
            }
        }
        let producer = Arc::clone(producer);
        // Waits for the threads of all brokers. The task fails only if the process is failing.
        let _ = tokio::task::spawn_blocking(move || producer.close()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::{borrow::Cow, sync::Arc, time::Duration};

    use epoch::{
        CommandContext, Metadata,
        envelope::Envelope,
        event::SchemaId,
        timestamp::Timestamp,
        version::{Position, Version},
    };
    use futures::future::join_all;
    use rdkafka::mocking::MockCluster;
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

    /// The mock cluster responds slowly, so that the test can observe the events in flight before the first response.
    #[tokio::test]
    async fn publisher_sends_the_first_event_of_a_partition_alone() {
        let cluster = MockCluster::new(1).unwrap();
        let config = KafkaConfig { partitions: 2, ..KafkaConfig::new(cluster.bootstrap_servers()) };
        cluster.create_topic(&epoch::message::topic(&config.namespace, "file"), 2, 1).unwrap();
        let publisher = Publisher::new(&config, None).unwrap();
        let producer = publisher.current().unwrap();
        let events: Vec<_> = (1..=60_u64).map(|n| event(Uuid::from_u128(u128::from(n % 20)), n.div_ceil(20))).collect();
        let topic = publisher.topic(&producer, &events[0]).await.unwrap();
        cluster.broker_round_trip_time(-1, Duration::from_millis(200)).unwrap();

        let in_flight = || producer.in_flight_count();
        let (mut max_while_closed, mut max_while_open) = (0, 0);
        let observer = async {
            loop {
                match (0..2).filter(|partition| topic.partitions.is_open(*partition)).count() {
                    0 => max_while_closed = max_while_closed.max(in_flight()),
                    2 => max_while_open = max_while_open.max(in_flight()),
                    _ => {}
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        // Concurrent publications, most of them with a single event.
        let (single, batch) = events.split_at(30);
        let calls = single.chunks(1).chain([batch]).map(|events| publisher.send(events));
        tokio::select! {
            sent = join_all(calls) => assert!(sent.iter().all(|(_, result)| result.is_ok()), "{sent:?}"),
            () = observer => {}
        }
        assert!((1..=2).contains(&max_while_closed), "{max_while_closed} events in flight to two closed partitions");
        assert!(max_while_open > 10, "{max_while_open} events in flight to open partitions");
    }
}
