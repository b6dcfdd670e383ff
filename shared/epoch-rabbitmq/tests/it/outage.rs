//! Failures: killed, absent and refusing brokers, panicking handlers, and processes with different settings.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use epoch::{bus::Bus, testkit::free_ports};
use epoch_rabbitmq::{Error, RabbitBus, RabbitConfig};

use crate::{broker::PrivateBroker, framing_suite::publish_all, support::*};

#[tokio::test(flavor = "multi_thread")]
async fn killed_broker_neither_loses_nor_reorders_events() {
    if config().is_none() {
        return;
    }
    let broker = PrivateBroker::new();
    let config = RabbitConfig { timeout: Duration::from_secs(2), ..private(broker.start()) };
    let (bus, ids) = (bus(&config), ids(12));
    let recorder = Recorder::new("surviving");
    let consuming = ConsumerTask::start(&bus, recorder.clone());
    let mut published = Vec::new();
    for (round, versions) in [1..=40, 41..=80, 81..=120].into_iter().enumerate() {
        let newer = events(&ids, versions);
        let publishing = tokio::spawn({
            let (bus, newer) = (Arc::clone(&bus), newer.clone());
            async move {
                for batch in newer.chunks(40) {
                    publish_all(&*bus, batch).await;
                }
            }
        });
        published.extend(newer);
        if round == 1 {
            recorder.wait_for(40 * ids.len() + 50).await;
            wait_until("the broker has persisted its streams", || broker.has_persisted_streams()).await;
            broker.kill();
            broker.start();
        }
        publishing.await.unwrap();
    }
    recorder.wait_for(published.len()).await;
    consuming.stop().await.unwrap();
    recorder.assert_exactly_once_in_order(&published);
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_and_stop_are_bounded_without_a_broker() {
    let url = format!("amqp://127.0.0.1:{}", free_ports());
    let bus = bus(&RabbitConfig { timeout: Duration::from_millis(500), ..private(url) });
    let consuming = ConsumerTask::start(&bus, Recorder::new("unreachable"));
    let start = Instant::now();
    let error = bus.publish(&events(&ids(1), 1..=2)).await.unwrap_err();
    assert_eq!((error.acknowledged, error.offered), (0, 2));
    consuming.stop().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_password_ends_the_consumer() {
    let Some(config) = config() else { return };
    let (_, host) = config.url.rsplit_once('@').unwrap();
    let wrong = RabbitConfig { url: format!("amqp://nobody:wrong@{host}"), ..config.clone() };
    let bus = bus(&wrong);
    let error = ConsumerTask::start(&bus, Recorder::new("locked_out")).end().await.unwrap_err();
    assert!(error.detail.contains("ACCESS_REFUSED") || error.detail.contains("ACCESS-REFUSED"), "{error}");
    let error = bus.publish(&events(&ids(1), 1..=1)).await.unwrap_err();
    assert!(!error.detail.contains("wrong"), "{error}");
}

#[test]
fn new_rejects_invalid_addresses() {
    for url in ["", "localhost", "http://localhost"] {
        let refused = RabbitBus::new(RabbitConfig::new(url)).err();
        assert!(matches!(refused, Some(Error::Address { .. })), "{url}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn panicking_handler_ends_the_consumer() {
    let Some(config) = config() else { return };
    let bus = bus(&config);
    let consuming = ConsumerTask::start(&bus, Recorder::panicking("panicking"));
    publish_all(&*bus, &events(&ids(1), 1..=1)).await;
    let error = consuming.end().await.unwrap_err();
    assert!(error.detail.contains("panic"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn existing_topic_keeps_its_stream_count() {
    let Some(three) = config() else { return };
    let five = RabbitConfig { partitions: 5, ..three.clone() };
    let (ids, buses) = (ids(20), [bus(&three), bus(&five)]);
    let mut published = Vec::new();
    for version in 1..=20_u64 {
        let newer = events(&ids, version..=version);
        publish_all(&*buses[usize::from(version % 2 == 0)], &newer).await;
        published.extend(newer);
    }
    let recorder = Recorder::new("either");
    let consuming = ConsumerTask::start(&buses[1], recorder.clone());
    recorder.wait_for(published.len()).await;
    consuming.stop().await.unwrap();
    recorder.assert_exactly_once_in_order(&published);
}

#[tokio::test(flavor = "multi_thread")]
async fn classic_queue_with_a_topics_name_is_reported() {
    let Some(config) = config() else { return };
    let topic = epoch::message::topic(&config.namespace, AGGREGATE);
    declare_classic(&config.url, &topic).await;
    let error = ConsumerTask::start(&bus(&config), Recorder::new("classic")).end().await.unwrap_err();
    assert!(error.detail.contains(&topic), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_metric_drops_to_zero_after_consumption() {
    let Some(config) = config() else { return };
    let config = RabbitConfig { partitions: 1, ..config };
    let (bus, recorder) = (bus(&config), Recorder::new("lagging"));
    let topic = epoch::message::topic(&config.namespace, AGGREGATE);
    let labels = [("subscription", "lagging"), ("topic", &*topic), ("partition", "0")];
    let published = events(&ids(3), 1..=10);
    publish_all(&*bus, &published).await;
    let consuming = ConsumerTask::start(&bus, recorder.clone());
    recorder.wait_for(published.len()).await;
    wait_until("the lag is 0", || metric("epoch_bus_lag_events", &labels) == Some(0.0)).await;
    assert_eq!(metric("epoch_bus_consumed_total", &[("subscription", "lagging")]), Some(30.0));
    consuming.stop().await.unwrap();
}
