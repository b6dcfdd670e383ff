//! The local way: handlers in this process have an event before the command answers.
//!
//! The problem: over a bus a read model is late by a network's time, and a user sees the old list after a change.
//!
//! The invariant: the local way is only faster, never needed. Its queues are bounded and shed when full; what it sheds, the
//! bus brings. What it applied, the bus's copy doesn't apply again: the [gate](crate::gate) decides both.

use std::{
    sync::{Arc, RwLock},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use crate::{envelope::Envelope, gate::Way, handler::Subscription};

/// Events of one commit, and whom to tell when they have been through the gate.
struct Item {
    events: Vec<Arc<Envelope>>,
    done: oneshot::Sender<()>,
}

struct Route {
    subscription: String,
    aggregates: &'static [&'static str],
    queue: mpsc::Sender<Item>,
}

/// Hands committed events to the subscriptions of this process, of all its services.
#[derive(Clone, Default)]
pub struct LocalBus {
    routes: Arc<RwLock<Vec<Route>>>,
}

/// How many commits may wait for one subscription before it sheds.
const QUEUE: usize = 1_024;
/// How many commits go through the gate at once.
const BATCH: usize = 64;

impl LocalBus {
    /// A bus without subscriptions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves `subscription` until the bus is dropped; run it in a task of its own.
    pub fn serve(&self, subscription: Arc<dyn Subscription>) -> impl Future<Output = ()> + Send + use<> {
        let (queue, mut items) = mpsc::channel(QUEUE);
        let route =
            Route { subscription: subscription.name().to_owned(), aggregates: subscription.aggregates(), queue };
        if let Ok(mut routes) = self.routes.write() {
            routes.push(route);
        }
        async move {
            let mut waiting: Vec<Item> = Vec::with_capacity(BATCH);
            while items.recv_many(&mut waiting, BATCH).await > 0 {
                deliver(&*subscription, &mut waiting).await;
            }
        }
    }

    /// Takes the events of one commit, without waiting.
    #[must_use = "the command answers when the receipt has come"]
    pub fn committed(&self, events: &[Arc<Envelope>]) -> Receipt {
        let Ok(routes) = self.routes.read() else { return Receipt::default() };
        let mut pending = Vec::new();
        for route in routes.iter() {
            let wanted = |event: &&Arc<Envelope>| route.aggregates.contains(&&*event.aggregate);
            let events: Vec<_> = events.iter().filter(wanted).cloned().collect();
            if events.is_empty() {
                continue;
            }
            let count = events.len() as u64;
            let (done, receipt) = oneshot::channel();
            match route.queue.try_send(Item { events, done }) {
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

async fn deliver(subscription: &dyn Subscription, waiting: &mut Vec<Item>) {
    let mut events: Vec<Arc<Envelope>> = waiting.iter().flat_map(|item| item.events.iter().cloned()).collect();
    // Two commits may be handed over in the other order; positions of one store are commit order.
    events.sort_by_key(|event| event.position);
    if let Err(error) = subscription.deliver(&events, Way::Local).await {
        tracing::debug!(%error, events = events.len(), "left to the bus");
    }
    for item in waiting.drain(..) {
        // Whoever asked may have given up waiting.
        let _ = item.done.send(());
    }
}

/// Tells when the handlers in this process have had the events of a commit.
#[derive(Debug, Default)]
pub struct Receipt {
    pending: Vec<oneshot::Receiver<()>>,
}

impl Receipt {
    /// Waits for all of them, but no longer than `limit`.
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
