//! A librdkafka producer that can be closed for good.
//!
//! One producer is shared by concurrent publications. After the first failure it is closed: everything that it has not sent is
//! purged and nothing more is accepted, so that no later event overtakes the failed one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer, PurgeConfig},
};

use crate::{client_log::ClientLog, error::Error, lock::lock, topic_partitions::TopicPartitions};

/// The error code for a topic that the contacted broker does not know yet.
pub(crate) const UNKNOWN_TOPIC: RDKafkaErrorCode = RDKafkaErrorCode::UnknownTopicOrPartition;

pub(crate) type Record<'a> = FutureRecord<'a, String, [u8]>;

/// A producer from its creation to its first failure.
pub(crate) struct SharedProducer {
    /// `Some` until it is dropped.
    producer: Option<FutureProducer<ClientLog>>,
    /// Enqueueing holds the lock for reading and closing for writing, so nothing is enqueued after the purge.
    closed: RwLock<bool>,
    topics: Mutex<HashMap<String, Arc<TopicPartitions>>>,
    /// Held by the one publication that opens partitions, so that a partition never has two first events in flight.
    pub(crate) opening: tokio::sync::Mutex<()>,
}

impl SharedProducer {
    pub(crate) fn new(config: &ClientConfig) -> Result<Self, Error> {
        let log = ClientLog { client: "producer".to_owned() };
        let producer = config.create_with_context(log).map_err(|source| Error::Settings { source })?;
        Ok(Self {
            producer: Some(producer),
            closed: RwLock::new(false),
            topics: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        })
    }

    /// Returns the partitions of a topic, if they were counted before.
    pub(crate) fn partitions(&self, topic: &str) -> Option<Arc<TopicPartitions>> {
        lock(&self.topics).get(topic).cloned()
    }

    /// Stores the partitions of a topic, unless a concurrent publication was first, and returns the stored ones.
    pub(crate) fn insert_partitions(&self, topic: &str, counted: TopicPartitions) -> Arc<TopicPartitions> {
        Arc::clone(lock(&self.topics).entry(topic.to_owned()).or_insert_with(|| Arc::new(counted)))
    }

    /// Enqueues a record, or returns `None` when the producer is closed.
    #[allow(clippy::result_large_err, reason = "the error returns the record for another attempt")]
    pub(crate) fn enqueue<'a>(&self, record: Record<'a>) -> Option<Result<DeliveryFuture, (KafkaError, Record<'a>)>> {
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return None;
        }
        self.producer.as_ref().map(|producer| producer.send_result(record))
    }

    /// Asks the broker for the number of a topic's partitions. Blocks until it responds.
    pub(crate) fn count_partitions(&self, topic: &str, timeout: Duration) -> Result<usize, KafkaError> {
        let Some(producer) = &self.producer else { return Err(KafkaError::Canceled) };
        let metadata = producer.client().fetch_metadata(Some(topic), timeout)?;
        match metadata.topics().first().map_or(0, |topic| topic.partitions().len()) {
            0 => Err(KafkaError::MetadataFetch(UNKNOWN_TOPIC)),
            count => Ok(count),
        }
    }

    pub(crate) fn is_fatal(&self) -> bool {
        self.producer.as_ref().is_some_and(|producer| producer.client().fatal_error().is_some())
    }

    /// Rejects further records and purges unsent ones. Blocks until librdkafka's broker threads have done so.
    pub(crate) fn close(&self) {
        let mut closed = self.closed.write().unwrap_or_else(PoisonError::into_inner);
        *closed = true;
        if let Some(producer) = &self.producer {
            producer.purge(PurgeConfig::default().queue().inflight());
        }
    }

    #[cfg(test)]
    pub(crate) fn in_flight_count(&self) -> i32 {
        self.producer.as_ref().map_or(0, |producer| producer.in_flight_count())
    }
}

impl Drop for SharedProducer {
    /// Drops the producer on a thread of its own: it joins librdkafka's threads, which must not block an async task.
    fn drop(&mut self) {
        let producer = self.producer.take();
        // If the thread cannot be started, the closure and the producer in it are dropped here.
        let _ = std::thread::Builder::new().spawn(move || drop(producer));
    }
}
