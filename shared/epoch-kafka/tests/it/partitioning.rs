//! The partition of an aggregate is the one that Kafka's Java client would choose, so that other clients find it there.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use epoch::bus::Bus;
use epoch_kafka::{KafkaConfig, partition_of};
use proptest::prelude::*;
use rdkafka::Message;
use uuid::Uuid;

use crate::support::*;

/// Reads the topic until it has `keys` different keys, and returns the partition of each.
fn read_partitions(config: &KafkaConfig, keys: usize) -> HashMap<String, i32> {
    let consumer = read_from_start(config, &topic(config, "file"));
    let (start, mut partitions) = (Instant::now(), HashMap::new());
    while partitions.len() < keys {
        assert!(start.elapsed() < LIMIT, "{} of {keys}", partitions.len());
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            partitions.insert(String::from_utf8(message.key().unwrap().to_vec()).unwrap(), message.partition());
        }
    }
    partitions
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3, ..ProptestConfig::default() })]
    #[test]
    fn aggregate_is_in_the_partition_of_the_java_client(
        ids in prop::collection::hash_set(any::<u128>().prop_map(Uuid::from_u128), 200),
        partition_count in 2..9_u32,
    ) {
        let config = KafkaConfig { partitions: partition_count.cast_signed(), ..config() };
        let ids: Vec<_> = ids.into_iter().collect();
        let published = tokio::runtime::Runtime::new()?.block_on(async {
            bus_with(&config, &["file"]).await.publish(&events("file", &ids, 1..=1)).await
        });
        prop_assert!(published.is_ok());
        for (key, partition) in read_partitions(&config, ids.len()) {
            prop_assert_eq!(partition.cast_unsigned(), partition_of(key.as_bytes(), partition_count), "{}", key);
        }
    }
}
