//! Numbers, for those who want them: `cargo test --release -p epoch-kafka measure -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use epoch::bus::Bus;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn measure_publishing() {
    for linger in ["0", "1", "5"] {
        let mut config = config();
        config.settings.insert("linger.ms".to_owned(), linger.to_owned());
        let bus = bus_with(&config, &["file"]).await;
        let ids = ids(100);
        bus.publish(&events("file", &ids, 1..=100)).await.unwrap();
        let batches: Vec<_> =
            (0..100_u64).map(|batch| events("file", &ids, 101 + batch * 10..111 + batch * 10)).collect();
        let start = Instant::now();
        for batch in &batches {
            bus.publish(batch).await.unwrap();
        }
        let took = start.elapsed();
        println!("linger {linger} ms: {} events/s in batches of 1000", 100_000 * 1_000 / took.as_millis());
        let mut single: Vec<Duration> = Vec::new();
        for version in 2_000..3_000 {
            let one = events("file", &ids[..1], version..=version);
            let start = Instant::now();
            bus.publish(&one).await.unwrap();
            single.push(start.elapsed());
        }
        single.sort();
        println!("linger {linger} ms: one event takes p50 {:?}, p99 {:?}", single[500], single[990]);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn measure_consuming() {
    let config = config();
    let bus = bus_with(&config, &["file"]).await;
    let published = events("file", &ids(100), 1..=1_000);
    for batch in published.chunks(1_000) {
        bus.publish(batch).await.unwrap();
    }
    let gate = gate("measured", &["file"]);
    let start = Instant::now();
    let consuming = Consuming::start(&bus, gate.clone());
    wait_for_events(&gate, 1).await;
    println!("the first event came after {:?}", start.elapsed());
    let start = Instant::now();
    wait_for_events(&gate, published.len()).await;
    println!("{} events/s consumed from the beginning", 100_000 * 1_000 / start.elapsed().as_millis());
    let mut latencies = Vec::new();
    for version in 1_001..=1_500 {
        let one = events("file", &[published[0].aggregate_id], version..=version);
        let start = Instant::now();
        bus.publish(&one).await.unwrap();
        wait_for_events(&gate, published.len() + latencies.len() + 1).await;
        latencies.push(start.elapsed());
    }
    latencies.sort();
    println!("from publish to gate: p50 {:?}, p99 {:?}", latencies[250], latencies[495]);
    consuming.stop().await.unwrap();
    assert_eq!(seen(&gate).len(), published.len() + latencies.len());
}
