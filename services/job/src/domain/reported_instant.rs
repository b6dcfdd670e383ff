//! Instants that a machine tells.
//!
//! The problem: run time is paid for, and its two ends are told by a machine whose clock is its own.
//!
//! The invariant: an instant that is taken lies neither before what it follows nor further ahead of this service's clock
//! than clocks differ. One that is before it by no more than clocks differ counts as the instant it follows.

use epoch::Timestamp;

/// How far the clocks of machines may be apart, in milliseconds.
pub const TOLERANCE_MS: i64 = 5_000;

/// Why an instant isn't taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImpossibleInstant {
    /// It hasn't come yet.
    #[error("{at} is more than {TOLERANCE_MS} ms after {now}, when it was told")]
    InTheFuture {
        /// What was told.
        at: Timestamp,
        /// When.
        now: Timestamp,
    },
    /// It was before something that it must follow.
    #[error("{at} is before {earliest}, when the job was queued or started")]
    TooEarly {
        /// What was told.
        at: Timestamp,
        /// What it must follow.
        earliest: Timestamp,
    },
}

/// When something happened that a machine says happened `at`, told `now`, and that can't have been before `earliest`.
///
/// # Errors
/// [`ImpossibleInstant`].
pub fn accept(at: Timestamp, now: Timestamp, earliest: Option<Timestamp>) -> Result<Timestamp, ImpossibleInstant> {
    if at.as_millis() > now.as_millis().saturating_add(TOLERANCE_MS) {
        return Err(ImpossibleInstant::InTheFuture { at, now });
    }
    let Some(earliest) = earliest else { return Ok(at) };
    if at.as_millis() < earliest.as_millis().saturating_sub(TOLERANCE_MS) {
        return Err(ImpossibleInstant::TooEarly { at, earliest });
    }
    Ok(at.max(earliest))
}

#[cfg(test)]
mod tests {
    use epoch::Timestamp;
    use proptest::prelude::*;

    use super::{ImpossibleInstant, TOLERANCE_MS, accept};

    fn instant(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn bounds_are_exact() {
        let (now, queued) = (instant(100_000), Some(instant(90_000)));
        assert_eq!(accept(instant(105_000), now, queued), Ok(instant(105_000)));
        let future = ImpossibleInstant::InTheFuture { at: instant(105_001), now };
        assert_eq!(accept(instant(105_001), now, queued), Err(future));
        assert_eq!(accept(instant(90_001), now, queued), Ok(instant(90_001)));
        assert_eq!(accept(instant(85_000), now, queued), Ok(instant(90_000)));
        let early = ImpossibleInstant::TooEarly { at: instant(84_999), earliest: instant(90_000) };
        assert_eq!(accept(instant(84_999), now, queued), Err(early));
        assert_eq!(accept(instant(0), now, None), Ok(instant(0)));
    }

    proptest! {
        #[test]
        fn what_is_taken_is_possible(at: i64, now: i64, earliest: i64) {
            if let Ok(taken) = accept(instant(at), instant(now), Some(instant(earliest))) {
                prop_assert!(taken >= instant(earliest));
                let in_reach = i128::from(at).abs_diff(i128::from(taken.as_millis())) <= TOLERANCE_MS.unsigned_abs().into();
                prop_assert!(in_reach);
            }
        }
    }
}
