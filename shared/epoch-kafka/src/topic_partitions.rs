//! A topic's partitions, as one producer knows them.
//!
//! The problem: a broker that has heard nothing of a producer takes whatever sequence number comes first (KAFKA-15591). Of two
//! requests on their way to a partition that is just being made, the first may be refused and the second taken; librdkafka then
//! counts what was refused as delivered, for in its view the second can only have been taken behind it. Events that were
//! acknowledged are nowhere.
//!
//! The invariant: until the broker has said yes to one of a producer's events in a partition, nothing else of that producer is on
//! its way there. From then on the broker itself sees to it that sequence numbers have no holes.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// A broker forgets a producer that is silent for `producer.id.expiration.ms`, a day unless it is told otherwise.
const REMEMBERED: Duration = Duration::from_secs(600);

/// The partition in which every client looks for a key: that of `org.apache.kafka.clients.producer.internals.BuiltInPartitioner`.
/// There is at least one partition.
#[must_use]
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions.max(1)
}

/// As in `org.apache.kafka.common.utils.Utils.murmur2`.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let (words, rest) = data.as_chunks::<4>();
    // Java's length is an `int`; no key is as long as that.
    let mut hash = SEED ^ u32::try_from(data.len()).unwrap_or(u32::MAX);
    for word in words {
        let mut word = u32::from_le_bytes(*word).wrapping_mul(M);
        word ^= word >> 24;
        hash = hash.wrapping_mul(M) ^ word.wrapping_mul(M);
    }
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// What one producer knows of a topic's partitions. Their number is the one at its first use of the topic.
pub(crate) struct Partitions {
    made: Instant,
    /// When the broker took an event last, in milliseconds since `made`, plus one; 0 when it never did.
    heard: Vec<AtomicU64>,
}

impl Partitions {
    pub(crate) fn new(count: usize) -> Self {
        Self { made: Instant::now(), heard: std::iter::repeat_with(AtomicU64::default).take(count).collect() }
    }

    /// The partition of a key.
    pub(crate) fn of(&self, key: &[u8]) -> u32 {
        partition_of(key, u32::try_from(self.heard.len()).unwrap_or(u32::MAX))
    }

    /// Whether the broker knows this producer there, so that several requests may be on their way.
    pub(crate) fn is_open(&self, partition: u32) -> bool {
        let heard = self.slot(partition).map_or(0, |heard| heard.load(Ordering::Acquire));
        heard > 0 && self.now() - heard.min(self.now()) < REMEMBERED.as_millis() as u64
    }

    /// The broker has taken an event.
    pub(crate) fn heard(&self, partition: u32) {
        if let Some(heard) = self.slot(partition) {
            heard.store(self.now(), Ordering::Release);
        }
    }

    fn slot(&self, partition: u32) -> Option<&AtomicU64> {
        self.heard.get(usize::try_from(partition).ok()?)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::{Partitions, murmur2};

    #[test]
    fn murmur2_is_java_s() {
        // Kafka's own UtilsTest.
        let cases = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (key, hash) in cases {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn a_partition_is_open_once_the_broker_was_heard_there() {
        let partitions = Partitions::new(3);
        assert!((0..4).all(|partition| !partitions.is_open(partition)));
        partitions.heard(1);
        assert_eq!([0, 1, 2].map(|partition| partitions.is_open(partition)), [false, true, false]);
        assert!(partitions.of(b"anything") < 3);
    }
}
