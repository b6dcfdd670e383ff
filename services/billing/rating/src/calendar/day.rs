//! Days of a time zone.
//!
//! A day has 23, 24 or 25 hours (22 and 26 have occurred). It starts at one o'clock where daylight saving
//! time skips midnight, and a zone that crosses the date line skips a whole day.
//!
//! Invariant: the days of a span partition it. Each day starts at the end of the day before, and none is
//! empty.
//!
//! The time zone database is compiled in, so that every machine cuts days alike. It is as recent as this
//! program.

use std::sync::LazyLock;

use epoch::Timestamp;
use jiff::{
    civil::Date,
    tz::{TimeZone, TimeZoneDatabase},
};

use crate::calendar::span::Span;

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// A day, or the intersection of a day with a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// The date in the time zone.
    pub date: Date,
    pub span: Span,
}

/// Errors of the calendar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CalendarError {
    /// The name is not in the IANA time zone database.
    #[error("unknown time zone {name:?}")]
    UnknownZone { name: String },
    /// The span exceeds the range of the calendar.
    #[error("the period lies outside the calendar: {detail}")]
    OutOfCalendar {
        /// The error of the calendar library.
        detail: String,
    },
}

impl From<jiff::Error> for CalendarError {
    fn from(error: jiff::Error) -> Self {
        Self::OutOfCalendar { detail: error.to_string() }
    }
}

/// Returns the time zone with this IANA name, ignoring case.
///
/// # Errors
/// [`CalendarError::UnknownZone`].
pub fn zone(name: &str) -> Result<TimeZone, CalendarError> {
    let zone = ZONES.get(name).ok().filter(|zone| !zone.is_unknown() && zone.iana_name().is_some());
    zone.ok_or_else(|| CalendarError::UnknownZone { name: name.to_owned() })
}

/// Splits a span into days; the first and the last are clipped to the span.
///
/// # Errors
/// [`CalendarError::OutOfCalendar`].
pub fn days(span: Span, zone: &TimeZone) -> Result<Vec<Day>, CalendarError> {
    let mut days = Vec::new();
    // Start a day early, since the clock may have been set back over midnight.
    let mut date = instant(span.start())?.to_zoned(zone.clone()).date().yesterday()?;
    let mut start = start_of_date(date, zone)?;
    while start < span.end() {
        let next = date.tomorrow()?;
        let end = start_of_date(next, zone)?;
        let clipped = Span::new(start, end).intersect(span);
        if !clipped.is_empty() {
            days.push(Day { date, span: clipped });
        }
        (date, start) = (next, end);
    }
    Ok(days)
}

/// Returns the start of the UTC month that contains the last instant before `end`.
///
/// # Errors
/// [`CalendarError::OutOfCalendar`].
pub fn start_of_month(end: Timestamp) -> Result<Timestamp, CalendarError> {
    let last = Timestamp::from_millis(end.as_millis().saturating_sub(1));
    let date = instant(last)?.to_zoned(TimeZone::UTC).date();
    start_of_date(date.first_of_month(), &TimeZone::UTC)
}

/// Returns the start of the day that contains an instant.
///
/// # Errors
/// [`CalendarError::OutOfCalendar`].
pub fn start_of_day(at: Timestamp, zone: &TimeZone) -> Result<Timestamp, CalendarError> {
    start_of_date(instant(at)?.to_zoned(zone.clone()).date(), zone)
}

pub(crate) fn instant(at: Timestamp) -> Result<jiff::Timestamp, CalendarError> {
    Ok(jiff::Timestamp::from_millisecond(at.as_millis())?)
}

/// Returns midnight: the first of two, or the first instant after a skipped midnight.
pub(crate) fn start_of_date(date: Date, zone: &TimeZone) -> Result<Timestamp, CalendarError> {
    let midnight = date.to_zoned(zone.clone())?;
    Ok(Timestamp::from_millis(midnight.timestamp().as_millisecond()))
}

#[cfg(test)]
mod tests {
    use epoch::Timestamp;
    use proptest::prelude::*;

    use super::{CalendarError, days, start_of_month, zone};
    use crate::calendar::span::Span;

    const HOUR: i128 = 3_600_000;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// Returns dates and lengths in milliseconds.
    fn lengths(name: &str, start: &str, end: &str) -> Vec<(String, i128)> {
        let days = days(Span::new(at(start), at(end)), &zone(name).unwrap()).unwrap();
        days.iter().map(|day| (day.date.to_string(), day.span.millis())).collect()
    }

    #[test]
    fn day_has_22_to_26_hours() {
        let autumn = lengths("Europe/Madrid", "2025-10-24T22:00:00Z", "2025-10-27T23:00:00Z");
        let expected = [("2025-10-25", 24), ("2025-10-26", 25), ("2025-10-27", 24)];
        assert_eq!(autumn, expected.map(|(date, hours)| (date.to_owned(), hours * HOUR)));
        let spring = lengths("Europe/Madrid", "2025-03-29T23:00:00Z", "2025-03-30T22:00:00Z");
        assert_eq!(spring, [("2025-03-30".to_owned(), 23 * HOUR)]);
        let half_an_hour = lengths("Australia/Lord_Howe", "2025-04-05T13:00:00Z", "2025-04-06T13:30:00Z");
        assert_eq!(half_an_hour, [("2025-04-06".to_owned(), 24 * HOUR + HOUR / 2)]);
        // Newfoundland set its clocks forward by two hours in 1988.
        let spring = lengths("America/St_Johns", "1988-04-03T03:30:00Z", "1988-04-04T01:30:00Z");
        assert_eq!(spring, [("1988-04-03".to_owned(), 22 * HOUR)]);
        let autumn = lengths("America/St_Johns", "1988-10-30T01:30:00Z", "1988-10-31T03:30:00Z");
        assert_eq!(autumn, [("1988-10-30".to_owned(), 26 * HOUR)]);
    }

    #[test]
    fn day_may_start_at_one_or_be_skipped() {
        let no_midnight = lengths("America/Sao_Paulo", "2015-10-17T03:00:00Z", "2015-10-19T02:00:00Z");
        assert_eq!(no_midnight, [("2015-10-17".to_owned(), 24 * HOUR), ("2015-10-18".to_owned(), 23 * HOUR)]);
        let skipped = lengths("Pacific/Apia", "2011-12-29T10:00:00Z", "2011-12-31T10:00:00Z");
        assert_eq!(skipped, [("2011-12-29".to_owned(), 24 * HOUR), ("2011-12-31".to_owned(), 24 * HOUR)]);
    }

    #[test]
    fn clock_set_back_over_midnight_yields_the_day_once() {
        // At 00:01 on November 7 the clock was set back to 23:01 on November 6.
        let twice = lengths("America/St_Johns", "2010-11-07T02:45:00Z", "2010-11-07T04:30:00Z");
        assert_eq!(twice, [("2010-11-07".to_owned(), 105 * 60_000)]);
    }

    #[test]
    fn first_and_last_day_are_clipped() {
        let clipped = lengths("UTC", "2025-01-01T23:59:59.999Z", "2025-01-02T00:00:00.001Z");
        assert_eq!(clipped, [("2025-01-01".to_owned(), 1), ("2025-01-02".to_owned(), 1)]);
        assert_eq!(lengths("UTC", "2025-01-01T00:00:00Z", "2025-01-01T00:00:00Z"), []);
    }

    #[test]
    fn zones_resolve_by_name() {
        assert_eq!(zone("europe/madrid").unwrap().iana_name(), Some("Europe/Madrid"));
        assert_eq!(zone("UTC").unwrap().iana_name(), Some("UTC"));
        for name in ["", "Europe/Nowhere", "+02:00", "Etc/Unknown", "../etc/passwd", "Europe/Madrid ", "localtime"] {
            assert_eq!(zone(name), Err(CalendarError::UnknownZone { name: name.to_owned() }));
        }
    }

    #[test]
    fn month_start_precedes_the_instant() {
        let cases = [
            ("2025-10-26T12:00:00Z", "2025-10-01T00:00:00Z"),
            ("2025-10-01T00:00:00.001Z", "2025-10-01T00:00:00Z"),
            ("2025-10-01T00:00:00Z", "2025-09-01T00:00:00Z"),
            ("2025-01-01T00:00:00Z", "2024-12-01T00:00:00Z"),
        ];
        for (end, start_of_date) in cases {
            assert_eq!(start_of_month(at(end)), Ok(at(start_of_date)), "{end}");
        }
    }

    #[test]
    fn calendar_range_is_checked() {
        for millis in [i64::MIN, i64::MAX, -377_705_023_201_000] {
            let span = Span::new(Timestamp::from_millis(millis), Timestamp::from_millis(millis.saturating_add(1)));
            if !span.is_empty() {
                assert!(
                    matches!(days(span, &zone("UTC").unwrap()), Err(CalendarError::OutOfCalendar { .. })),
                    "{millis}"
                );
            }
        }
    }

    const ZONES: [&str; 10] = [
        "UTC",
        "Europe/Madrid",
        "America/New_York",
        "America/Sao_Paulo",
        "America/Havana",
        "America/St_Johns",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "Asia/Kathmandu",
        "Africa/Casablanca",
    ];

    proptest! {
        #[test]
        fn days_partition_the_span(
            name in prop::sample::select(&ZONES[..]),
            start in 0..2_500_000_000_000_i64,
            length in 0..34_560_000_000_i64,
        ) {
            let span = Span::new(Timestamp::from_millis(start), Timestamp::from_millis(start + length));
            let days = days(span, &zone(name).unwrap()).unwrap();
            let mut reached = span.start();
            for day in &days {
                prop_assert_eq!(day.span.start(), reached);
                prop_assert!(!day.span.is_empty());
                prop_assert!(day.span.millis() <= 26 * HOUR);
                reached = day.span.end();
            }
            prop_assert_eq!(reached, span.end());
            prop_assert!(days.windows(2).all(|pair| pair[0].date < pair[1].date));
        }
    }
}
