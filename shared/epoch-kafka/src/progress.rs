//! Progress of a partition's task, shared with the polling thread.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use epoch_registry::DeliveryObserver;

use crate::lock::lock;

/// The position of a partition before its first event is polled.
pub(crate) const UNKNOWN: i64 = -1;

/// Position and last activity of a partition's task.
pub(crate) struct Progress {
    state: Mutex<State>,
}

struct State {
    position: i64,
    active_at: Instant,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { position: UNKNOWN, active_at: Instant::now() }) }
    }

    /// Returns the offset of the first event that the subscription has not accepted.
    pub(crate) fn position(&self) -> i64 {
        lock(&self.state).position
    }

    /// Moves the position and counts as activity.
    pub(crate) fn set_position(&self, position: i64) {
        *lock(&self.state) = State { position, active_at: Instant::now() };
    }

    /// Returns the time since the last activity.
    pub(crate) fn idle_for(&self) -> Duration {
        lock(&self.state).active_at.elapsed()
    }

    /// Records activity without progress.
    pub(crate) fn touch(&self) {
        lock(&self.state).active_at = Instant::now();
    }
}

impl DeliveryObserver for Progress {
    fn delivered_up_to(&self, offset: i64) {
        self.set_position(offset);
    }

    /// A subscription that fails and is retried is not stuck.
    fn retrying(&self) {
        self.touch();
    }
}
