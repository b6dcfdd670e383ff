//! Other clients must find an aggregate in the partition where Java's client would have put it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use epoch::bus::Bus;
use epoch_kafka::KafkaConfig;
use proptest::prelude::*;
use rdkafka::{
    ClientConfig, Message,
    consumer::{BaseConsumer, Consumer},
};
use uuid::Uuid;

use crate::support::*;

/// As in `org.apache.kafka.common.utils.Utils.murmur2`.
fn murmur2(data: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let (words, rest) = data.as_chunks::<4>();
    let mut hash = SEED ^ u32::try_from(data.len()).unwrap();
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
    (hash ^ (hash >> 15)).cast_signed()
}

/// As in `BuiltInPartitioner.partitionForKey`.
fn java_partition(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

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
        assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
    }
}

/// The partitions in which these keys are found.
fn partitions(config: &KafkaConfig, keys: usize) -> HashMap<String, i32> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &config.bootstrap_servers)
        .set("group.id", format!("{}.reader", config.namespace))
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&[&topic(config, "file")]).unwrap();
    let (start, mut found) = (Instant::now(), HashMap::new());
    while found.len() < keys {
        assert!(start.elapsed() < LIMIT, "{} of {keys}", found.len());
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            found.insert(String::from_utf8(message.key().unwrap().to_vec()).unwrap(), message.partition());
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3, ..ProptestConfig::default() })]
    #[test]
    fn an_aggregate_is_in_the_partition_that_java_would_choose(
        ids in prop::collection::hash_set(any::<u128>().prop_map(Uuid::from_u128), 200),
        partition_count in 2..9_i32,
    ) {
        let config = KafkaConfig { partitions: partition_count, ..config() };
        let ids: Vec<_> = ids.into_iter().collect();
        let published = tokio::runtime::Runtime::new()?.block_on(async {
            bus_with(&config, &["file"]).await.publish(&events("file", &ids, 1..=1)).await
        });
        prop_assert!(published.is_ok());
        for (key, partition) in partitions(&config, ids.len()) {
            prop_assert_eq!(partition, java_partition(key.as_bytes(), partition_count), "{}", key);
        }
    }
}
