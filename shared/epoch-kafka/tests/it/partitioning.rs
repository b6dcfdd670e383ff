//! Other clients must find an aggregate in the partition where Java's client would have put it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use epoch::bus::Bus;
use epoch_kafka::{KafkaConfig, partition_of};
use proptest::prelude::*;
use rdkafka::{
    ClientConfig, Message,
    consumer::{BaseConsumer, Consumer},
};
use uuid::Uuid;

use crate::support::*;

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
        partition_count in 2..9_u32,
    ) {
        let config = KafkaConfig { partitions: partition_count.cast_signed(), ..config() };
        let ids: Vec<_> = ids.into_iter().collect();
        let published = tokio::runtime::Runtime::new()?.block_on(async {
            bus_with(&config, &["file"]).await.publish(&events("file", &ids, 1..=1)).await
        });
        prop_assert!(published.is_ok());
        for (key, partition) in partitions(&config, ids.len()) {
            prop_assert_eq!(partition.cast_unsigned(), partition_of(key.as_bytes(), partition_count), "{}", key);
        }
    }
}
