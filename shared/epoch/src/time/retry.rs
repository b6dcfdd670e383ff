//! Retry delays with full jitter.
//!
//! Each delay is random below a bound that doubles up to a limit, so that clients of the same conflict do not retry in
//! step.

use std::time::Duration;

/// The number of attempts and the delays between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The total number of attempts, at least one.
    pub attempts: u32,
    /// The upper bound of the first delay.
    pub first: Duration,
    /// The upper bound of every delay.
    pub limit: Duration,
}

impl RetryPolicy {
    /// For write conflicts: the competing events are committed already, so delays are short.
    pub const CONFLICT: RetryPolicy =
        RetryPolicy { attempts: 50, first: Duration::from_millis(1), limit: Duration::from_millis(50) };

    /// For handlers: a store or a peer may be unavailable for seconds.
    pub const HANDLER: RetryPolicy =
        RetryPolicy { attempts: 5, first: Duration::from_millis(50), limit: Duration::from_secs(5) };

    /// Returns a random delay after `failed` failed attempts (1 or more).
    #[must_use]
    pub fn wait(&self, failed: u32) -> Duration {
        let bound = self.bound(failed);
        Duration::from_micros(fastrand::u64(0..=u64::try_from(bound.as_micros()).unwrap_or(u64::MAX)))
    }

    fn bound(&self, failed: u32) -> Duration {
        let doublings = failed.saturating_sub(1).min(20);
        self.first.saturating_mul(1 << doublings).min(self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::RetryPolicy;

    #[test]
    fn delay_bounds_double_up_to_the_limit() {
        let policy = RetryPolicy::HANDLER;
        let bounds: Vec<_> = [1, 2, 3, 8, 100].map(|failed| policy.bound(failed).as_millis()).into();
        assert_eq!(bounds, [50, 100, 200, 5_000, 5_000]);
        assert!((1..100).all(|failed| policy.wait(failed) <= policy.limit));
    }
}
