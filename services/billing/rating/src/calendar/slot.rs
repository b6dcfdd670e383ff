//! Slots: hours, days or months of a time zone within a period.
//!
//! Invariant: slots partition the period; the first and the last are clipped to it. Hours are counted from
//! the start of the day, so a day of 25 hours has 25 slots, and a day of 24½ hours ends with half an hour.

use epoch::Timestamp;
use jiff::tz::TimeZone;

use crate::calendar::{
    day::{CalendarError, days},
    span::Span,
};

const HOUR_MS: i64 = 3_600_000;

/// The length of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granularity {
    Hour,
    Day,
    Month,
    /// The whole period as one slot.
    Period,
}

/// A part of a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The date of a day or of the day of an hour, such as `2025-10-26`; a month, such as `2025-10`; or the
    /// first day of the period.
    pub date: String,
    pub span: Span,
}

/// Splits a period into slots.
///
/// # Errors
/// [`CalendarError::OutOfCalendar`].
pub fn slots(granularity: Granularity, period: Span, zone: &TimeZone) -> Result<Vec<Slot>, CalendarError> {
    let days_of_period = days(period, zone)?;
    let mut slots: Vec<Slot> = Vec::new();
    match granularity {
        Granularity::Day => {
            slots.extend(days_of_period.iter().map(|day| Slot { date: day.date.to_string(), span: day.span }));
        }
        Granularity::Month => {
            for day in days_of_period {
                let month = format!("{:04}-{:02}", day.date.year(), day.date.month());
                match slots.last_mut() {
                    Some(last) if last.date == month => last.span = Span::new(last.span.start(), day.span.end()),
                    _ => slots.push(Slot { date: month, span: day.span }),
                }
            }
        }
        Granularity::Period => {
            slots.extend(days_of_period.first().map(|day| Slot { date: day.date.to_string(), span: period }));
        }
        Granularity::Hour => {
            // Start three days early, so that the first day is complete.
            let before = Timestamp::from_millis(period.start().as_millis().saturating_sub(72 * HOUR_MS));
            for day in days(Span::new(before, period.end()), zone)? {
                let mut start = day.span.start();
                while start < day.span.end() {
                    let end = Timestamp::from_millis(start.as_millis().saturating_add(HOUR_MS)).min(day.span.end());
                    let span = Span::new(start, end).intersect(period);
                    if !span.is_empty() {
                        slots.push(Slot { date: day.date.to_string(), span });
                    }
                    start = end;
                }
            }
        }
    }
    Ok(slots)
}

#[cfg(test)]
mod tests {
    use epoch::Timestamp;
    use proptest::{prelude::*, sample::select};

    use super::{Granularity, slots};
    use crate::calendar::{day::zone, span::Span};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn count(granularity: Granularity, start: &str, end: &str, name: &str) -> Vec<(String, i128)> {
        let slots = slots(granularity, Span::new(at(start), at(end)), &zone(name).unwrap()).unwrap();
        slots.into_iter().map(|slot| (slot.date, slot.span.millis())).collect()
    }

    #[test]
    fn hours_follow_the_zone() {
        let hours = count(Granularity::Hour, "2025-10-25T22:00:00Z", "2025-10-26T23:00:00Z", "Europe/Madrid");
        assert_eq!(hours.len(), 25);
        let half = count(Granularity::Hour, "2025-10-26T10:10:00Z", "2025-10-26T11:30:00Z", "Asia/Kolkata");
        let lengths: Vec<_> = half.iter().map(|(_, millis)| millis / 60_000).collect();
        assert_eq!(lengths, [20, 60], "hours start at half past in UTC");
        let lord_howe = count(Granularity::Hour, "2025-04-05T13:00:00Z", "2025-04-06T13:30:00Z", "Australia/Lord_Howe");
        assert_eq!((lord_howe.len(), lord_howe[24].1), (25, 1_800_000));
    }

    #[test]
    fn months_follow_the_zone() {
        let months = count(Granularity::Month, "2025-09-30T22:00:00Z", "2025-11-30T23:00:00Z", "Europe/Madrid");
        let hour = 3_600_000;
        assert_eq!(months, [("2025-10".to_owned(), (31 * 24 + 1) * hour), ("2025-11".to_owned(), 30 * 24 * hour)]);
        let whole = count(Granularity::Period, "2025-09-30T22:00:00Z", "2025-11-30T23:00:00Z", "Europe/Madrid");
        assert_eq!(whole, [("2025-10-01".to_owned(), (61 * 24 + 1) * hour)]);
    }

    proptest! {
        #[test]
        fn slots_partition_the_period(
            start in 1_700_000_000_000..1_800_000_000_000_i64, length in 1..5_000_000_000_i64,
            granularity in select(vec![Granularity::Hour, Granularity::Day, Granularity::Month, Granularity::Period]),
            name in select(vec!["UTC", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Havana"]),
        ) {
            let period = Span::new(Timestamp::from_millis(start), Timestamp::from_millis(start + length));
            let mut reached = period.start();
            for slot in slots(granularity, period, &zone(name).unwrap()).unwrap() {
                prop_assert_eq!(slot.span.start(), reached);
                prop_assert!(!slot.span.is_empty());
                reached = slot.span.end();
            }
            prop_assert_eq!(reached, period.end());
        }
    }
}
