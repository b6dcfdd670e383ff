//! Whether consumers are alive.
//!
//! The problem: a consumer whose thread is gone, whose client has failed for good, or whose handler hangs looks exactly like one
//! that has nothing to do.
//!
//! The invariant: whoever has events and shows no sign of life for `stuck_after` is reported, and so is every client that can't
//! go on, until it is consumed from again. A handler that fails and is retried is alive: restarting the process doesn't bring
//! its database back.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A subscription that doesn't get its events any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("subscription {subscription} is not served: {detail}")]
pub struct Unhealthy {
    /// Whose.
    pub subscription: String,
    /// What was seen, with topic and partition where known.
    pub detail: String,
}

/// The consumers of one bus.
#[derive(Default)]
pub(crate) struct Health {
    consumers: Mutex<Vec<Arc<ConsumerHealth>>>,
}

/// What is known of one consumer.
pub(crate) struct ConsumerHealth {
    subscription: String,
    pub(crate) stuck_after: Duration,
    state: Mutex<State>,
}

/// A consumer while it is consumed from.
pub(crate) struct Registered<'a> {
    health: &'a Health,
    pub(crate) consumer: Arc<ConsumerHealth>,
}

impl Drop for Registered<'_> {
    /// Forgets it, unless it failed.
    fn drop(&mut self) {
        let over = |known: &Arc<ConsumerHealth>| Arc::ptr_eq(known, &self.consumer) && !known.has_failed();
        lock(&self.health.consumers).retain(|known| !over(known));
    }
}

struct State {
    polled: Instant,
    stuck: Option<String>,
    failed: Option<String>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Health {
    /// A consumer of `subscription` begins; what failed before it is forgiven.
    pub(crate) fn register(&self, subscription: &str, stuck_after: Duration) -> Registered<'_> {
        let state = State { polled: Instant::now(), stuck: None, failed: None };
        let consumer =
            Arc::new(ConsumerHealth { subscription: subscription.to_owned(), stuck_after, state: Mutex::new(state) });
        let mut consumers = lock(&self.consumers);
        consumers.retain(|known| known.subscription != subscription || !known.has_failed());
        consumers.push(Arc::clone(&consumer));
        Registered { health: self, consumer }
    }

    pub(crate) fn check(&self) -> Result<(), Unhealthy> {
        lock(&self.consumers).iter().try_for_each(|consumer| consumer.check())
    }
}

impl ConsumerHealth {
    /// The consumer was polled; `stuck` names a partition without a sign of life.
    pub(crate) fn polled(&self, stuck: Option<String>) {
        let mut state = lock(&self.state);
        state.polled = Instant::now();
        state.stuck = stuck;
    }

    /// The consumer can't go on.
    pub(crate) fn failed(&self, detail: String) {
        lock(&self.state).failed = Some(detail);
    }

    fn has_failed(&self) -> bool {
        lock(&self.state).failed.is_some()
    }

    fn check(&self) -> Result<(), Unhealthy> {
        let state = lock(&self.state);
        let silent = state.polled.elapsed();
        let detail = if let Some(failed) = &state.failed {
            failed.clone()
        } else if let Some(stuck) = &state.stuck {
            stuck.clone()
        } else if silent > self.stuck_after {
            format!("not polled for {silent:?}")
        } else {
            return Ok(());
        };
        Err(Unhealthy { subscription: self.subscription.clone(), detail })
    }
}
