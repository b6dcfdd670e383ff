//! The partitions of a topic as one producer knows them.
//!
//! A broker accepts any first sequence number from a producer it does not know (KAFKA-15591). With two requests in flight to a new
//! partition, it may refuse the first and accept the second. librdkafka then reports the refused events as delivered, because it
//! assumes that the second request can only have been accepted after them. Acknowledged events would be lost.
//!
//! Therefore a partition is closed until the broker has acknowledged one event of this producer there. While it is closed, one event
//! at most is in flight to it. Once it is open, the broker itself rejects gaps in the sequence numbers.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::partitioner::partition_of;

/// The time for which a partition stays open without a new acknowledgement.
///
/// Brokers forget a silent producer after `producer.id.expiration.ms`, one day by default.
const OPEN_FOR: Duration = Duration::from_secs(600);

/// A topic's partitions, counted at the producer's first use of the topic.
pub(crate) struct TopicPartitions {
    created_at: Instant,
    /// For each partition, the time of its last acknowledgement in milliseconds since `created_at`, plus 1; 0 if there is none.
    acknowledged_at: Vec<AtomicU64>,
}

impl TopicPartitions {
    pub(crate) fn new(count: usize) -> Self {
        let acknowledged_at = std::iter::repeat_with(AtomicU64::default).take(count).collect();
        Self { created_at: Instant::now(), acknowledged_at }
    }

    /// Returns the partition of a key.
    pub(crate) fn of(&self, key: &[u8]) -> u32 {
        partition_of(key, u32::try_from(self.acknowledged_at.len()).unwrap_or(u32::MAX))
    }

    /// Returns whether the broker knows this producer in the partition, so that several requests may be in flight.
    pub(crate) fn is_open(&self, partition: u32) -> bool {
        let acknowledged_at = self.slot(partition).map_or(0, |slot| slot.load(Ordering::Acquire));
        let now = self.now();
        acknowledged_at > 0 && now - acknowledged_at.min(now) < OPEN_FOR.as_millis() as u64
    }

    /// Records that the broker has acknowledged an event, which opens the partition.
    pub(crate) fn acknowledged(&self, partition: u32) {
        if let Some(slot) = self.slot(partition) {
            slot.store(self.now(), Ordering::Release);
        }
    }

    fn slot(&self, partition: u32) -> Option<&AtomicU64> {
        self.acknowledged_at.get(usize::try_from(partition).ok()?)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.created_at.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::TopicPartitions;

    #[test]
    fn partition_opens_with_its_first_acknowledgement() {
        let partitions = TopicPartitions::new(3);
        assert!((0..4).all(|partition| !partitions.is_open(partition)));
        partitions.acknowledged(1);
        assert_eq!([0, 1, 2].map(|partition| partitions.is_open(partition)), [false, true, false]);
        assert!(partitions.of(b"anything") < 3);
    }
}
