//! Publishing and assertions of the suite.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    kit::LIMIT,
    probe::{EventKey, key_of},
};
use crate::{
    delivery::bus::Bus,
    event::envelope::{Batch, Envelope},
};

/// Publishes as a relay does: unacknowledged events are published again.
pub(super) async fn publish(bus: &Arc<dyn Bus>, events: &Batch) {
    let start = Instant::now();
    for batch in events.chunks(200) {
        let mut remaining = batch;
        while let Err(error) = bus.publish(remaining).await {
            assert!(start.elapsed() < LIMIT, "publishing failed: {error}");
            remaining = remaining.get(error.acknowledged..).unwrap_or_default();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Asserts that the first deliveries of each aggregate's events are in version order, starting with 1.
pub(super) fn assert_order(delivered: &[EventKey]) {
    let mut next: HashMap<_, u64> = HashMap::new();
    for (id, version) in delivered {
        let next = next.entry(id).or_insert(1);
        assert!(version <= next, "{id}: version {version} was delivered before {next}");
        *next = (*next).max(version + 1);
    }
}

/// Asserts that each published event was applied once, and each aggregate's events in order.
pub(super) fn assert_exactly_once(applied: &[EventKey], published: &[Arc<Envelope>]) {
    let mut applied = applied.to_vec();
    let mut expected: Vec<EventKey> = published.iter().map(|event| key_of(event)).collect();
    // The sort is stable, so each aggregate's events keep their order.
    applied.sort_by_key(|(id, _)| *id);
    expected.sort_by_key(|(id, _)| *id);
    assert_eq!(applied, expected, "applied events");
}
