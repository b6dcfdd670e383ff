//! Validation of instants that machines report.
//!
//! Customers pay for run time, and the clock of the machine measures both of its ends. A reported instant must be neither
//! before the event it follows nor ahead of this service's clock, with a tolerance of [`TOLERANCE_MS`] for clock
//! differences. An instant slightly before the preceding event counts as that event's instant.

use epoch::Timestamp;

/// Tolerated difference between the clocks of machine and service, in milliseconds.
pub const TOLERANCE_MS: i64 = 5_000;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImpossibleInstant {
    #[error("{at} is more than {TOLERANCE_MS} ms ahead of the service clock, {now}")]
    InTheFuture { at: Timestamp, now: Timestamp },
    #[error("{at} is before {earliest}, when the job was queued or started")]
    TooEarly {
        at: Timestamp,
        /// Instant of the preceding event.
        earliest: Timestamp,
    },
}

/// Validates `at`, reported at `now`, and returns it, raised to `earliest` when it is slightly before.
///
/// # Errors
/// [`ImpossibleInstant`] when `at` is more than [`TOLERANCE_MS`] after `now` or before `earliest`.
pub fn validate_reported_instant(
    at: Timestamp,
    now: Timestamp,
    earliest: Option<Timestamp>,
) -> Result<Timestamp, ImpossibleInstant> {
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

    use super::{ImpossibleInstant, TOLERANCE_MS, validate_reported_instant};

    fn instant(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn reported_instant_bounds_are_inclusive() {
        let (now, queued) = (instant(100_000), Some(instant(90_000)));
        assert_eq!(validate_reported_instant(instant(105_000), now, queued), Ok(instant(105_000)));
        let future = ImpossibleInstant::InTheFuture { at: instant(105_001), now };
        assert_eq!(validate_reported_instant(instant(105_001), now, queued), Err(future));
        assert_eq!(validate_reported_instant(instant(90_001), now, queued), Ok(instant(90_001)));
        assert_eq!(validate_reported_instant(instant(85_000), now, queued), Ok(instant(90_000)));
        let early = ImpossibleInstant::TooEarly { at: instant(84_999), earliest: instant(90_000) };
        assert_eq!(validate_reported_instant(instant(84_999), now, queued), Err(early));
        assert_eq!(validate_reported_instant(instant(0), now, None), Ok(instant(0)));
    }

    proptest! {
        #[test]
        fn accepted_instant_is_not_early_and_within_tolerance(at: i64, now: i64, earliest: i64) {
            if let Ok(accepted) = validate_reported_instant(instant(at), instant(now), Some(instant(earliest))) {
                prop_assert!(accepted >= instant(earliest));
                let difference = i128::from(at).abs_diff(i128::from(accepted.as_millis()));
                prop_assert!(difference <= TOLERANCE_MS.unsigned_abs().into());
            }
        }
    }
}
