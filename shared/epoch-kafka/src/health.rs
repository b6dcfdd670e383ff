//! Health of the consumers of a bus.
//!
//! A consumer is unhealthy when its thread has ended, its client has failed permanently, or a partition shows no activity for
//! `stuck_after` although it has events. A handler that fails and is retried counts as active: a restart of this process would not
//! bring its database back.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crate::lock::lock;

/// A subscription that receives no events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("subscription {subscription} is not consuming: {detail}")]
pub struct Unhealthy {
    /// The name of the subscription.
    pub subscription: String,
    /// The cause, with topic and partition where known.
    pub detail: String,
}

/// The consumers of one bus.
#[derive(Default)]
pub(crate) struct Health {
    consumers: Mutex<Vec<Arc<ConsumerHealth>>>,
}

/// The health of one consumer.
pub(crate) struct ConsumerHealth {
    subscription: String,
    pub(crate) stuck_after: Duration,
    state: Mutex<State>,
}

/// Registers a consumer until it is dropped.
pub(crate) struct HealthRegistration<'a> {
    health: &'a Health,
    pub(crate) consumer: Arc<ConsumerHealth>,
}

impl Drop for HealthRegistration<'_> {
    /// Removes the consumer. A failed one stays, so that it is reported until its subscription is consumed again.
    fn drop(&mut self) {
        let is_over = |known: &Arc<ConsumerHealth>| Arc::ptr_eq(known, &self.consumer) && !known.has_failed();
        lock(&self.health.consumers).retain(|known| !is_over(known));
    }
}

struct State {
    polled_at: Instant,
    stuck: Option<String>,
    failure: Option<String>,
}

impl Health {
    /// Registers a consumer of `subscription` and removes its failed predecessors.
    pub(crate) fn register(&self, subscription: &str, stuck_after: Duration) -> HealthRegistration<'_> {
        let state = State { polled_at: Instant::now(), stuck: None, failure: None };
        let consumer =
            Arc::new(ConsumerHealth { subscription: subscription.to_owned(), stuck_after, state: Mutex::new(state) });
        let mut consumers = lock(&self.consumers);
        consumers.retain(|known| known.subscription != subscription || !known.has_failed());
        consumers.push(Arc::clone(&consumer));
        HealthRegistration { health: self, consumer }
    }

    pub(crate) fn check(&self) -> Result<(), Unhealthy> {
        lock(&self.consumers).iter().try_for_each(|consumer| consumer.check())
    }
}

impl ConsumerHealth {
    /// Records that the consumer was polled; `stuck` describes a partition without activity.
    pub(crate) fn record_poll(&self, stuck: Option<String>) {
        let mut state = lock(&self.state);
        state.polled_at = Instant::now();
        state.stuck = stuck;
    }

    /// Records a permanent failure.
    pub(crate) fn record_failure(&self, detail: String) {
        lock(&self.state).failure = Some(detail);
    }

    fn has_failed(&self) -> bool {
        lock(&self.state).failure.is_some()
    }

    fn check(&self) -> Result<(), Unhealthy> {
        let state = lock(&self.state);
        let since_poll = state.polled_at.elapsed();
        let detail = if let Some(failure) = &state.failure {
            failure.clone()
        } else if let Some(stuck) = &state.stuck {
            stuck.clone()
        } else if since_poll > self.stuck_after {
            format!("not polled for {since_poll:?}")
        } else {
            return Ok(());
        };
        Err(Unhealthy { subscription: self.subscription.clone(), detail })
    }
}
