//! Recovery from a broker that is killed and restarted.

use std::{sync::Arc, time::Duration};

use epoch::bus::Bus;
use epoch_kafka::{KafkaBus, KafkaConfig};

use crate::{broker::PrivateBroker, framing_suite::publish_all, support::*};

#[tokio::test(flavor = "multi_thread")]
async fn killed_broker_neither_loses_nor_reorders_events() {
    let (broker, servers) = tokio::task::spawn_blocking(PrivateBroker::start).await.unwrap();
    let broker = Arc::new(broker);
    let config = KafkaConfig { delivery_timeout: Duration::from_secs(2), ..private(servers) };
    broker.create_topics(&config, &["file"]);
    let bus = Arc::new(KafkaBus::connect(config).unwrap());
    bus.ensure_topics(&["file"]).await.unwrap();
    let gate = gate("surviving", &["file"]);
    let consuming = ConsumerTask::start(&bus, gate.clone());

    let published = events("file", &ids(50), 1..=100);
    let publishing = tokio::spawn({
        let (bus, published) = (Arc::clone(&bus), published.clone());
        async move {
            let mut errors = Vec::new();
            for batch in published.chunks(50) {
                errors.extend(publish_all(&*bus, batch).await);
            }
            errors
        }
    });
    wait_for_events(&gate, 1_000).await;
    let restarted = tokio::task::spawn_blocking({
        let broker = Arc::clone(&broker);
        move || {
            broker.kill();
            broker.restart();
        }
    });
    let errors = publishing.await.unwrap();
    restarted.await.unwrap();
    wait_for_events(&gate, published.len()).await;
    eprintln!("{} publications failed while the broker was down", errors.len());
    assert!(bus.healthy().is_ok());
    assert_exactly_once(&received(&gate), &published);

    // The consumer stops while the broker is down, although librdkafka would wait for the broker's response.
    let killed = tokio::task::spawn_blocking(move || broker.kill()).await;
    killed.unwrap();
    let start = std::time::Instant::now();
    consuming.stop().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(bus.publish(&published[..1]).await.is_err());
}
