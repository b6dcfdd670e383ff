//! When a run began and ended.
//!
//! The problem: the system's clock may be set while a job runs, and its time is paid for.
//! The invariant: instants of one stopwatch are as far apart as the monotonic clock says.

use std::time::Instant;

use epoch::Timestamp;

/// Reads the time since it was started off the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch {
    started_at: Timestamp,
    began: Instant,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self { started_at: Timestamp::now(), began: Instant::now() }
    }

    pub(crate) fn started_at(&self) -> Timestamp {
        self.started_at
    }

    pub(crate) fn now(&self) -> Timestamp {
        let elapsed = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(self.started_at.as_millis().saturating_add(elapsed))
    }
}
