//! How long to wait before trying again.
//!
//! The problem: those who lost the same race try again at the same moment and lose again.
//! The invariant: every wait is a random part of a bound that doubles up to a limit ("full jitter").

use std::time::Duration;

/// Attempts and waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often to try in all, at least once.
    pub attempts: u32,
    /// The bound of the first wait.
    pub first: Duration,
    /// The bound of every wait.
    pub limit: Duration,
}

impl RetryPolicy {
    /// For commands that lost a race: the other one is in the store already, so waits are short.
    pub const CONFLICT: RetryPolicy =
        RetryPolicy { attempts: 50, first: Duration::from_millis(1), limit: Duration::from_millis(50) };

    /// For handlers: a store or a peer may be away for a while.
    pub const HANDLER: RetryPolicy =
        RetryPolicy { attempts: 5, first: Duration::from_millis(50), limit: Duration::from_secs(5) };

    /// How long to wait after `failed` failed attempts (1 or more).
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
    fn bounds_double_up_to_the_limit() {
        let policy = RetryPolicy::HANDLER;
        let bounds: Vec<_> = [1, 2, 3, 8, 100].map(|failed| policy.bound(failed).as_millis()).into();
        assert_eq!(bounds, [50, 100, 200, 5_000, 5_000]);
        assert!((1..100).all(|failed| policy.wait(failed) <= policy.limit));
    }
}
