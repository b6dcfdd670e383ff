//! Calendar months, the billing periods of accounts.
//!
//! Each time zone starts a month at another instant, and accounts may change their zone. Invariant: the
//! months of an account are contiguous. A month starts at its first midnight in the zone that applies to it,
//! and ends where the next month starts.

use std::{fmt, str::FromStr};

use epoch::Timestamp;
use jiff::{ToSpan, civil::Date, tz::TimeZone};
use serde::{Deserialize, Serialize};

use crate::calendar::day::{CalendarError, instant, start_of_date};

/// A calendar month, written as `2026-03`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Month(Date);

/// Text that is not a month.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a month such as 2026-03")]
pub struct InvalidMonth {
    text: String,
}

impl Month {
    /// Returns the month that contains an instant.
    ///
    /// # Errors
    /// [`CalendarError::OutOfCalendar`].
    pub fn of(at: Timestamp, zone: &TimeZone) -> Result<Self, CalendarError> {
        Ok(Self(instant(at)?.to_zoned(zone.clone()).date().first_of_month()))
    }

    /// Returns the month after this one.
    ///
    /// # Errors
    /// [`CalendarError::OutOfCalendar`].
    pub fn next(self) -> Result<Self, CalendarError> {
        Ok(Self(self.0.checked_add(1.month())?))
    }

    /// Returns the month before this one.
    ///
    /// # Errors
    /// [`CalendarError::OutOfCalendar`].
    pub fn previous(self) -> Result<Self, CalendarError> {
        Ok(Self(self.0.checked_sub(1.month())?))
    }

    /// Returns the first instant of the month in a time zone.
    ///
    /// # Errors
    /// [`CalendarError::OutOfCalendar`].
    pub fn beginning(self, zone: &TimeZone) -> Result<Timestamp, CalendarError> {
        start_of_date(self.0, zone)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:04}-{:02}", self.0.year(), self.0.month())
    }
}

impl FromStr for Month {
    type Err = InvalidMonth;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidMonth { text: text.chars().take(40).collect() };
        let (year, month) = text.split_once('-').ok_or_else(invalid)?;
        let digits = |part: &str, count| part.len() == count && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(year, 4) || !digits(month, 2) {
            return Err(invalid());
        }
        let (Ok(year), Ok(month)) = (year.parse(), month.parse()) else { return Err(invalid()) };
        Date::new(year, month, 1).map(Self).map_err(|_| invalid())
    }
}

impl TryFrom<String> for Month {
    type Error = InvalidMonth;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Month> for String {
    fn from(month: Month) -> Self {
        month.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::Month;
    use crate::calendar::day::zone;

    #[test]
    fn months_parse_and_are_contiguous() {
        let month: Month = "2025-12".parse().unwrap();
        assert_eq!(
            (month.next().unwrap().to_string(), month.previous().unwrap().to_string()),
            ("2026-01".to_owned(), "2025-11".to_owned())
        );
        for wrong in ["2025-13", "2025-1", "2025", "25-12", "2025-00", "+025-12", "2025-12-01"] {
            assert!(wrong.parse::<Month>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn month_starts_at_midnight_in_its_zone() {
        let beginning = |month: &str, name: &str| {
            month.parse::<Month>().unwrap().beginning(&zone(name).unwrap()).unwrap().to_string()
        };
        assert_eq!(beginning("2025-04", "Europe/Madrid"), "2025-03-31T22:00:00.000Z");
        assert_eq!(beginning("2025-01", "Asia/Kolkata"), "2024-12-31T18:30:00.000Z");
        let at = "2025-03-31T22:00:00Z".parse().unwrap();
        assert_eq!(Month::of(at, &zone("Europe/Madrid").unwrap()).unwrap().to_string(), "2025-04");
        assert_eq!(Month::of(at, &zone("UTC").unwrap()).unwrap().to_string(), "2025-03");
    }
}
