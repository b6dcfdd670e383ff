//! Progress and result of a rebuild.

use std::time::Duration;

/// The progress of a rebuild.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RebuildProgress {
    /// The generation that is being built.
    pub generation: u64,
    /// The events it has applied, including earlier attempts.
    pub done: u64,
    /// The events that the serving generation had applied when it was last read.
    pub total: u64,
    /// The events applied in this attempt.
    pub applied: u64,
    /// The duration of this attempt.
    pub elapsed: Duration,
}

impl RebuildProgress {
    /// Returns the events per second of this attempt.
    #[must_use]
    pub fn rate(&self) -> u64 {
        let millis = u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
        self.applied.saturating_mul(1_000) / millis
    }

    /// Estimates the remaining time at the current rate; `None` while the rate is zero.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let left = self.total.saturating_sub(self.done);
        left.checked_div(self.rate()).map(Duration::from_secs)
    }
}

/// The result of a finished rebuild.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RebuildSummary {
    /// The generation that is now serving.
    pub generation: u64,
    /// The events applied in this attempt.
    pub applied: u64,
    /// Whether the rebuild resumed an earlier attempt.
    pub resumed: bool,
}
