//! The checks of the suite that need one subscription per group.

use std::{
    collections::HashSet,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use futures::FutureExt;
use tokio::sync::Semaphore;

use super::{
    checks::{assert_exactly_once, assert_order, publish},
    factory::Factory,
    kit::{ids, retry_later, wait_until},
    probe::{Probe, event, events},
};
use crate::{delivery::bus::Bus, event::envelope::Envelope};

/// Publishes the events while the probe consumes, and checks that it gets each aggregate's events once, in version order.
async fn check_delivery(bus: &Arc<dyn Bus>, probe: &Probe, published: &[Arc<Envelope>]) {
    let consuming = probe.consume(bus);
    publish(bus, published).await;
    probe.wait_for(published.len()).await;
    consuming.stopped().await;
    assert_order(&probe.log.delivered());
    assert_exactly_once(&probe.keys(), published);
}

/// Checks that each aggregate's events arrive at least once and in version order.
///
/// # Panics
/// When the check fails.
pub async fn aggregate_events_arrive_in_order(factory: Factory) {
    let (bus, probe) = (factory.bus().await, Probe::new("ordered"));
    let published = events(&ids(20), 1..=50);
    check_delivery(&bus, &probe, &published).await;
}

/// Checks that all fields of an envelope are transmitted.
///
/// # Panics
/// When the check fails.
pub async fn event_arrives_unchanged(factory: Factory) {
    let (bus, probe) = (factory.bus().await, Probe::new("unchanged"));
    let published = [event(ids(1)[0], 1)];
    let consuming = probe.consume(&bus);
    publish(&bus, &published).await;
    probe.wait_for(1).await;
    consuming.stopped().await;
    assert_eq!(probe.applied(), published);
}

/// Checks fan-out to several subscriptions.
///
/// # Panics
/// When the check fails.
pub async fn every_subscription_receives_all_events(factory: Factory) {
    let bus = factory.bus().await;
    let probes = [Probe::new("one"), Probe::new("another"), Probe::new("third")];
    let published = events(&ids(10), 1..=20);
    let consuming: Vec<_> = probes.iter().map(|probe| probe.consume(&bus)).collect();
    publish(&bus, &published).await;
    for (probe, consuming) in probes.iter().zip(consuming) {
        probe.wait_for(published.len()).await;
        consuming.stopped().await;
        assert_exactly_once(&probe.keys(), &published);
    }
}

/// Checks that a new subscription receives events that were published before it existed.
///
/// # Panics
/// When the check fails.
pub async fn late_subscription_starts_at_the_first_event(factory: Factory) {
    let (bus, probe, ids) = (factory.bus().await, Probe::new("late"), ids(10));
    let mut published = events(&ids, 1..=60);
    publish(&bus, &published).await;
    let later = factory.bus().await;
    let consuming = probe.consume(&later);
    probe.wait_for(1).await;
    let newer = events(&ids, 61..=70);
    publish(&bus, &newer).await;
    published.extend(newer);
    probe.wait_for(published.len()).await;
    consuming.stopped().await;
    assert_order(&probe.log.delivered());
    assert_exactly_once(&probe.keys(), &published);
}

/// Checks that a restarted subscription receives only new events.
///
/// # Panics
/// When the check fails.
pub async fn restarted_subscription_resumes_at_its_position(factory: Factory) {
    let (probe, ids) = (Probe::new("returning"), ids(10));
    let mut published = Vec::new();
    for round in 0..3 {
        let bus = factory.bus().await;
        let newer = events(&ids, round * 10 + 1..=round * 10 + 10);
        // Publish before consuming: creating the topic concurrently may force a repeated publish.
        publish(&bus, &newer).await;
        published.extend(newer);
        let consuming = probe.consume(&bus);
        probe.wait_for(published.len()).await;
        consuming.stopped().await;
    }
    assert_exactly_once(&probe.keys(), &published);
    assert_eq!(probe.log.delivered().len(), published.len(), "no event was delivered twice");
}

/// Checks that a failed delivery is repeated before later events, also when it failed after the batch was applied.
///
/// # Panics
/// When the check fails.
pub async fn rejected_batch_is_redelivered(factory: Factory) {
    let calls = Arc::new(AtomicUsize::new(0));
    let (before, after) = (Arc::clone(&calls), Arc::clone(&calls));
    let reject = |rejected: bool| async move { if rejected { Err(retry_later()) } else { Ok(()) } }.boxed();
    let probe = Probe::new("rejecting")
        .before(Arc::new(move |_| reject(before.fetch_add(1, Ordering::SeqCst) % 3 == 0)))
        .after(Arc::new(move |_| reject(after.load(Ordering::SeqCst) % 3 == 2)));
    let (bus, published) = (factory.bus().await, events(&ids(5), 1..=50));
    check_delivery(&bus, &probe, &published).await;
}

/// Checks that a crash with an applied but unacknowledged batch loses and reorders nothing.
///
/// # Panics
/// When the check fails.
#[allow(clippy::expect_used, reason = "a test kit fails tests by panicking")]
pub async fn unacknowledged_batch_is_redelivered_after_crash(factory: Factory) {
    let (bus, probe, published) = (factory.bus().await, Probe::new("crashing"), events(&ids(5), 1..=100));
    let (first, second) = published.split_at(published.len() / 2);
    publish(&bus, first).await;
    let process = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let process = process.expect("a runtime");
    let hung = Arc::new(AtomicBool::new(false));
    let hanging = probe.clone().after(Arc::new({
        let hung = Arc::clone(&hung);
        move |_| {
            hung.store(true, Ordering::SeqCst);
            pending().boxed()
        }
    }));
    process.spawn(async move {
        let bus = factory.bus().await;
        let _consuming = hanging.consume(&bus);
        pending::<()>().await;
    });
    wait_until("a batch is in flight", || hung.load(Ordering::SeqCst)).await;
    process.shutdown_background();
    let (before, delivered) = (probe.keys(), probe.log.delivered().len());
    assert!(!before.is_empty(), "no event was applied before the crash");

    let consuming = probe.consume(&bus);
    publish(&bus, second).await;
    probe.wait_for(published.len()).await;
    consuming.stopped().await;
    assert_exactly_once(&probe.keys(), &published);
    assert_order(&probe.log.delivered());
    let redelivered = probe.log.delivered().split_off(delivered);
    let redelivered: HashSet<_> = redelivered.iter().collect();
    assert!(before.iter().all(|key| redelivered.contains(key)), "an unacknowledged event was not redelivered");
}

/// Checks back pressure: a slow subscription has a bounded number of events in flight.
///
/// # Panics
/// When the check fails.
pub async fn slow_subscription_receives_bounded_batches(factory: Factory) {
    let permits = Arc::new(Semaphore::new(0));
    let waiting = Arc::clone(&permits);
    let probe = Probe::new("slow").before(Arc::new(move |_| {
        let permits = Arc::clone(&waiting);
        async move {
            permits.acquire().await.map_err(|_| retry_later())?.forget();
            Ok(())
        }
        .boxed()
    }));
    let (bus, published) = (factory.bus().await, events(&ids(30), 1..=100));
    let consuming = probe.consume(&bus);
    // Publishing is not blocked while the subscription processes nothing.
    publish(&bus, &published).await;
    while probe.applied_count() < published.len() {
        let applied = probe.applied_count();
        permits.add_permits(1);
        wait_until("the next batch", || probe.applied_count() > applied).await;
    }
    consuming.stopped().await;
    assert!(
        probe.log.max_in_flight() <= factory.max_in_flight(),
        "{} events were in flight",
        probe.log.max_in_flight()
    );
    assert_exactly_once(&probe.keys(), &published);
}

/// Checks that a malformed message does not stop a subscription.
///
/// # Panics
/// When the check fails.
pub async fn malformed_message_is_skipped(factory: Factory) {
    let (bus, probe, ids) = (factory.bus().await, Probe::new("undisturbed"), ids(5));
    let mut published = events(&ids, 1..=5);
    publish(&bus, &published).await;
    if !factory.publish_malformed().await {
        return;
    }
    let newer = events(&ids, 6..=10);
    publish(&bus, &newer).await;
    published.extend(newer);
    let consuming = probe.consume(&bus);
    probe.wait_for(published.len()).await;
    consuming.stopped().await;
    assert_exactly_once(&probe.keys(), &published);
}

/// Checks that a handler that fails for one aggregate receives the events of all others.
///
/// # Panics
/// When the check fails.
pub async fn failing_aggregate_does_not_block_others(factory: Factory) {
    let ids = ids(10);
    let (poisoned, others) = (ids[0], &ids[1..]);
    let probe = Probe::rejecting("poisoned", poisoned);
    let (bus, published) = (factory.bus().await, events(&ids, 1..=20));
    let consuming = probe.consume(&bus);
    publish(&bus, &published).await;
    probe.wait_for(others.len() * 20).await;
    consuming.stopped().await;
    let expected: Vec<_> = published.iter().filter(|event| event.aggregate_id != poisoned).cloned().collect();
    assert_exactly_once(&probe.keys(), &expected);
    assert!(probe.is_parked(poisoned).await, "the failing aggregate is not parked");
}
