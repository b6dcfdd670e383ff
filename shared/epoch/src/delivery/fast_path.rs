//! The fast path: delivery to handlers of the same process, before the command returns.
//!
//! Over a bus, a read model lags by a network round trip, and a user sees an outdated list after a change. The fast
//! path is an optimization and never required: its queues are bounded and drop events when full, and the bus delivers
//! the dropped events. The [gate](crate::gate) drops the bus's copies of events that the fast path delivered.
//!
//! Metrics: `epoch_delivered_total` (`subscription`, `way`, `result`) counts dropped events with `way="local"`,
//! `result="shed"`; `epoch_local_late_total` counts commands that stopped waiting for their handlers.

use std::{
    sync::{Arc, RwLock},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use super::{gate::DeliverySource, handler::Subscription};
use crate::event::envelope::Envelope;

/// The events of one commit for one subscription.
struct Delivery {
    events: Vec<Arc<Envelope>>,
    done: oneshot::Sender<()>,
}

struct Route {
    subscription: String,
    aggregates: &'static [&'static str],
    queue: mpsc::Sender<Delivery>,
}

/// Delivers committed events to the subscriptions of all services in this process.
#[derive(Clone, Default)]
pub struct FastPath {
    routes: Arc<RwLock<Vec<Route>>>,
}

/// How many commits may wait for one subscription before further ones are dropped.
const QUEUE_CAPACITY: usize = 1_024;
/// How many commits are delivered together.
const BATCH: usize = 64;

impl FastPath {
    /// Creates a fast path without subscriptions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers `subscription` and returns the task that delivers to it until the fast path is dropped.
    pub fn serve(&self, subscription: Arc<dyn Subscription>) -> impl Future<Output = ()> + Send + use<> {
        let (queue, mut deliveries) = mpsc::channel(QUEUE_CAPACITY);
        let route =
            Route { subscription: subscription.name().to_owned(), aggregates: subscription.aggregates(), queue };
        if let Ok(mut routes) = self.routes.write() {
            routes.push(route);
        }
        async move {
            let mut waiting: Vec<Delivery> = Vec::with_capacity(BATCH);
            while deliveries.recv_many(&mut waiting, BATCH).await > 0 {
                deliver(&*subscription, &mut waiting).await;
            }
        }
    }

    /// Queues the events of one commit for all subscriptions, without waiting.
    #[must_use = "a command returns when its receipt completes"]
    pub fn dispatch(&self, events: &[Arc<Envelope>]) -> Receipt {
        let Ok(routes) = self.routes.read() else { return Receipt::default() };
        let mut pending = Vec::new();
        for route in routes.iter() {
            let subscribed = |event: &&Arc<Envelope>| route.aggregates.contains(&&*event.aggregate);
            let events: Vec<_> = events.iter().filter(subscribed).cloned().collect();
            if events.is_empty() {
                continue;
            }
            let count = events.len() as u64;
            let (done, receipt) = oneshot::channel();
            match route.queue.try_send(Delivery { events, done }) {
                Ok(()) => pending.push(receipt),
                Err(_) => {
                    let subscription = route.subscription.clone();
                    metrics::counter!("epoch_delivered_total", "subscription" => subscription, "way" => "local", "result" => "shed")
                        .increment(count);
                }
            }
        }
        Receipt { pending }
    }
}

async fn deliver(subscription: &dyn Subscription, waiting: &mut Vec<Delivery>) {
    let mut events: Vec<Arc<Envelope>> = waiting.iter().flat_map(|delivery| delivery.events.iter().cloned()).collect();
    // Concurrent commits may be queued out of order. Positions of one store are in commit order.
    events.sort_by_key(|event| event.position);
    if let Err(error) = subscription.deliver(&events, DeliverySource::FastPath).await {
        tracing::debug!(%error, events = events.len(), "fast-path delivery failed; leaving the events to the bus");
    }
    for delivery in waiting.drain(..) {
        // The send fails when the command has stopped waiting.
        let _ = delivery.done.send(());
    }
}

/// Completes when the subscriptions of this process have processed the events of a commit.
#[derive(Debug, Default)]
pub struct Receipt {
    pending: Vec<oneshot::Receiver<()>>,
}

impl Receipt {
    /// Waits for all subscriptions, but at most for `limit`.
    pub async fn wait(self, limit: Duration) {
        if self.pending.is_empty() {
            return;
        }
        let all = futures::future::join_all(self.pending);
        if tokio::time::timeout(limit, all).await.is_err() {
            metrics::counter!("epoch_local_late_total").increment(1);
        }
    }
}
