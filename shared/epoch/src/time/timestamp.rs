//! Instants as UTC milliseconds.
//!
//! The problem: metering needs exact integers, and every store and every bus must keep the same instant to the last digit.
//! The invariant: an instant is a whole number of milliseconds since 1970-01-01T00:00:00Z; there is no smaller part to lose.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The instant this many milliseconds after the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The system clock, now.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 with milliseconds, as in `2025-10-26T01:30:00.500Z`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(instant) => write!(formatter, "{instant:.3}"),
            Err(_) => write!(formatter, "{}ms", self.0),
        }
    }
}

/// Text that isn't an RFC 3339 instant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 instant: {detail}")]
pub struct ParseTimestampError {
    detail: String,
}

impl std::str::FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<jiff::Timestamp>()
            .map(|instant| Self(instant.as_millisecond()))
            .map_err(|error| ParseTimestampError { detail: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::Timestamp;

    #[test]
    fn shows_and_reads_rfc_3339() {
        let instant: Timestamp = "2025-10-26T01:30:00.500Z".parse().unwrap();
        assert_eq!(instant.as_millis(), 1_761_442_200_500);
        assert_eq!(instant.to_string(), "2025-10-26T01:30:00.500Z");
        assert!("yesterday".parse::<Timestamp>().is_err());
    }
}
