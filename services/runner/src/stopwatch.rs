//! Measures the run time of a program.
//!
//! Customers pay for run time, and the system clock may be adjusted during a run. A stopwatch reads the system clock once and
//! derives later instants from the monotonic clock.

use std::time::Instant;

use epoch::Timestamp;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch {
    started_at: Timestamp,
    started: Instant,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self { started_at: Timestamp::now(), started: Instant::now() }
    }

    pub(crate) fn started_at(&self) -> Timestamp {
        self.started_at
    }

    pub(crate) fn now(&self) -> Timestamp {
        let elapsed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(self.started_at.as_millis().saturating_add(elapsed))
    }
}
