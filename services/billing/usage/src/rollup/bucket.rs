//! Time buckets, and the buckets that make up a span.
//!
//! A report must not cost as much as there are events, yet be exact at any instant: at midnights of zones
//! with an offset of 30 or 45 minutes, and at an `as_of` within an hour.
//!
//! Invariant: time is divided into buckets of four [widths](Width), each a multiple of the next narrower one,
//! and a level change is added to one bucket of each width. A span consists of few buckets, the widest that
//! fit, plus the partial hours at its ends, where the changes themselves are read. These [pieces](Piece)
//! partition the span. So stored rollups do not depend on the rules of time zones, and a late change updates
//! one bucket of each width.
//!
//! Days of a time zone start within UTC days, so they would take hundreds of hour buckets a month. For spans
//! of about a day or more, whole UTC days are read instead, and the time between their edges and the nearest
//! midnights is [corrected](ByDays).

use epoch::Timestamp;
use rating::{calendar::span::Span, metering::level::LevelSums};

/// The width of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Width {
    Hour,
    /// A UTC day of 24 hours.
    Day,
    Days32,
    Days1024,
}

impl Width {
    /// All widths, starting with the narrowest.
    pub const ALL: [Self; 4] = [Self::Hour, Self::Day, Self::Days32, Self::Days1024];

    /// Returns the width in milliseconds.
    #[must_use]
    pub const fn millis(self) -> i64 {
        match self {
            Self::Hour => 3_600_000,
            Self::Day => 24 * 3_600_000,
            Self::Days32 => 32 * 24 * 3_600_000,
            Self::Days1024 => 1_024 * 24 * 3_600_000,
        }
    }

    /// Returns the number that is stored for the width.
    #[must_use]
    pub const fn number(self) -> i16 {
        match self {
            Self::Hour => 0,
            Self::Day => 1,
            Self::Days32 => 2,
            Self::Days1024 => 3,
        }
    }

    /// Returns the bucket that contains an instant.
    #[must_use]
    pub const fn bucket(self, at: Timestamp) -> i64 {
        at.as_millis().div_euclid(self.millis())
    }

    /// Returns the span of a bucket.
    #[must_use]
    pub fn span(self, bucket: i64) -> Span {
        let start = |bucket: i64| Timestamp::from_millis(bucket.saturating_mul(self.millis()));
        Span::new(start(bucket), start(bucket.saturating_add(1)))
    }
}

/// A piece of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// The buckets `[first, end)` of a width.
    Buckets {
        width: Width,
        first: i64,
        /// The exclusive end.
        end: i64,
    },
    /// Single changes, of a span within an hour.
    Changes(Span),
}

/// Splits a span into pieces.
#[must_use]
pub fn within(span: Span) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut at = span.start();
    while at < span.end() {
        let fits = |width: &&Width| {
            let bucket = width.span(width.bucket(at));
            bucket.start() == at && bucket.end() <= span.end()
        };
        let Some(width) = Width::ALL.iter().rev().find(fits).copied() else {
            let hour = Width::Hour.span(Width::Hour.bucket(at));
            let rest = Span::new(at, hour.end().min(span.end()));
            pieces.push(Piece::Changes(rest));
            at = rest.end();
            continue;
        };
        let bucket = width.bucket(at);
        match pieces.last_mut() {
            Some(Piece::Buckets { width: last, end, .. }) if *last == width => *end = bucket + 1,
            _ => pieces.push(Piece::Buckets { width, first: bucket, end: bucket + 1 }),
        }
        at = width.span(bucket).end();
    }
    pieces
}

/// Splits all time before an instant into pieces.
#[must_use]
pub fn before(until: Timestamp) -> Vec<Piece> {
    let widest = Width::Days1024;
    let bucket = widest.bucket(until);
    let mut pieces = vec![Piece::Buckets { width: widest, first: i64::MIN, end: bucket }];
    pieces.extend(within(Span::new(widest.span(bucket).start(), until)));
    pieces
}

/// Contiguous spans as whole UTC days, from the midnight nearest to their start to the one nearest to their
/// end.
///
/// A day counts in the span that contains its middle ([`MIDDLE_OF_DAY`]). The time between an edge, where two
/// spans meet, and the nearest midnight is less than a day. It is subtracted from the span of its day and
/// added to its own span.
///
/// Example: days in Madrid (UTC+2) start at 22:00 UTC. UTC day D counts in the Madrid day that contains noon
/// of D, and the hours 22:00 to 24:00 of D move to the next Madrid day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByDays {
    /// The number of the first UTC day, and the exclusive end.
    pub days: (i64, i64),
    /// The time between edges and their nearest midnights.
    pub at_edges: Vec<Piece>,
}

/// The offset from a midnight to the last instant that is nearest to that midnight.
pub const MIDDLE_OF_DAY: i64 = Width::Day.millis() / 2 - 1;

/// Returns contiguous spans by whole UTC days, if there are several and their mean length is about a day or
/// more.
#[must_use]
pub fn by_days(spans: &[Span]) -> Option<ByDays> {
    let [first, .., last] = spans else { return None };
    let follow = spans.windows(2).all(|pair| matches!(pair, [left, right] if left.end() == right.start()));
    let about_a_day = i128::from(Width::Day.millis()) * 5 / 6;
    let of_all = Span::new(first.start(), last.end()).millis();
    if !follow || i128::try_from(spans.len()).is_ok_and(|spans| of_all < about_a_day * spans) {
        return None;
    }
    let next_to =
        |at: Timestamp| Width::Day.bucket(Timestamp::from_millis(at.as_millis().saturating_add(MIDDLE_OF_DAY + 1)));
    let mut edges = spans.iter().map(|span| span.start()).chain([last.end()]).peekable();
    let (mut at_edges, mut before) = (Vec::new(), Timestamp::from_millis(i64::MIN));
    while let Some(edge) = edges.next() {
        let midnight = Width::Day.span(next_to(edge)).start();
        // The time between a midnight and several edges is split at each edge and listed once.
        let between = match edges.peek() {
            Some(after) if edge < midnight => Span::new(edge, midnight.min(*after)),
            None if edge < midnight => Span::new(edge, midnight),
            _ => Span::new(midnight.max(before), edge),
        };
        at_edges.extend(within(between));
        before = edge;
    }
    let days = (next_to(first.start()), next_to(last.end()));
    Some(ByDays { days, at_edges })
}

/// Computes the areas over contiguous spans, from the sums of all changes before the first span and of the
/// changes in each.
#[must_use]
pub fn areas(before: LevelSums, spans: &[Span], within: &[LevelSums]) -> Vec<i128> {
    let mut sums = before;
    let mut areas = Vec::with_capacity(spans.len());
    for (span, changes) in spans.iter().zip(within) {
        let at_start = sums.area_until(span.start());
        sums = sums.merge(*changes);
        areas.push(sums.area_until(span.end()) - at_start);
    }
    areas
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use epoch::Timestamp;
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::{ByDays, MIDDLE_OF_DAY, Piece, Width, areas, before, by_days, within};
    use rating::{
        calendar::{
            day::{days, zone},
            span::Span,
        },
        metering::level::{LevelChange, LevelSums, area},
    };

    /// 2024-11-01, late enough that buckets of all widths occur.
    const START: i64 = 1_730_419_200_000;
    const HOUR: i64 = 3_600_000;
    const DAY: i64 = 24 * HOUR;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    /// The stored rollups: one row for each width and bucket with changes.
    #[derive(Default, PartialEq, Debug)]
    struct Rollups(BTreeMap<(Width, i64), LevelSums>);

    impl Rollups {
        fn of(changes: &[LevelChange]) -> Self {
            let mut rollups = Self::default();
            for change in changes {
                for width in Width::ALL {
                    rollups.0.entry((width, width.bucket(change.at))).or_default().add(*change);
                }
            }
            rollups
        }

        fn read(&self, changes: &[LevelChange], pieces: &[Piece]) -> LevelSums {
            let mut sums = LevelSums::default();
            for piece in pieces {
                match *piece {
                    Piece::Buckets { width, first, end } => {
                        for row in self.0.range((width, first)..(width, end)) {
                            sums = sums.merge(*row.1);
                        }
                    }
                    Piece::Changes(span) => {
                        for change in
                            changes.iter().filter(|change| span.start() <= change.at && change.at < span.end())
                        {
                            sums.add(*change);
                        }
                    }
                }
            }
            sums
        }
    }

    fn changes() -> impl Strategy<Value = Vec<LevelChange>> {
        let when = prop_oneof![
            START - 2_000 * DAY..START + 60 * DAY,
            START..START + 60 * DAY,
            // Near the edges of buckets.
            (-40..60_i64).prop_map(|hours| START + hours * HOUR),
            -5 * DAY..5 * DAY,
        ];
        vec((when, -1_000_000..1_000_000_000_000_i64), 0..60)
            .prop_map(|all| all.into_iter().map(|(millis, delta)| LevelChange { at: at(millis), delta }).collect())
    }

    const ZONES: [&str; 8] = [
        "UTC",
        "Europe/Madrid",
        "Asia/Kolkata",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "Pacific/Chatham",
        "America/St_Johns",
        "Pacific/Kiritimati",
    ];

    #[test]
    fn span_takes_the_widest_buckets_that_fit() {
        let madrid = Span::new(at(START - 2 * HOUR), at(START + 22 * HOUR));
        let hours = |first, end| Piece::Buckets { width: Width::Hour, first, end };
        assert_eq!(within(madrid), [hours(START / HOUR - 2, START / HOUR + 22)]);
        let day = Piece::Buckets { width: Width::Day, first: START / DAY, end: START / DAY + 1 };
        assert_eq!(within(Span::new(at(START), at(START + DAY))), [day]);
        let half = Span::new(at(START - HOUR / 2), at(START + DAY + 1));
        let edges = |start, end| Piece::Changes(Span::new(at(start), at(end)));
        assert_eq!(within(half), [edges(START - HOUR / 2, START), day, edges(START + DAY, START + DAY + 1)]);
        assert_eq!(within(Span::new(at(START), at(START))), []);
        assert!(before(at(START + 12_345)).len() <= 5);
    }

    #[test]
    fn widths_nest_and_have_distinct_numbers() {
        for pair in Width::ALL.windows(2) {
            assert_eq!(pair[1].millis() % pair[0].millis(), 0);
            assert!(pair[0].number() < pair[1].number());
        }
        assert_eq!(Width::Hour.bucket(at(-1)), -1);
        assert_eq!(Width::Day.span(-1), Span::new(at(-DAY), at(0)));
    }

    proptest! {
        #[test]
        fn days_of_every_zone_match_the_plain_integral(
            changes in changes(), zone_name in select(&ZONES[..]), start in START - 5 * DAY..START + 40 * DAY, length in 0..35 * DAY,
        ) {
            let period = Span::new(at(start), at(start + length));
            let days: Vec<_> = days(period, &zone(zone_name).unwrap()).unwrap().iter().map(|day| day.span).collect();
            let rollups = Rollups::of(&changes);
            let sums: Vec<_> = days.iter().map(|day| rollups.read(&changes, &within(*day))).collect();
            let read = areas(rollups.read(&changes, &before(period.start())), &days, &sums);
            let plain: Vec<_> = days.iter().map(|day| area(&changes, *day)).collect();
            prop_assert_eq!(&read, &plain);
            prop_assert_eq!(read.iter().sum::<i128>(), area(&changes, period), "days sum to the period");
        }

        /// Includes spans several of which start in one UTC day.
        #[test]
        fn spans_by_whole_days_match_the_plain_integral(
            changes in changes(), start in prop_oneof![START - 5 * DAY..START + 40 * DAY, START + 12 * HOUR - 2..START + 12 * HOUR + 3],
            lengths in vec(prop_oneof![4 => DAY..3 * DAY, 2 => Just(DAY), 1 => Just(HOUR / 2), 1 => 0..1_000_i64], 2..20),
        ) {
            let mut spans: Vec<Span> = Vec::new();
            for length in lengths {
                let from = spans.last().map_or(at(start), |last| last.end());
                spans.push(Span::new(from, at(from.as_millis() + length)));
            }
            let Some(ByDays { days, at_edges }) = by_days(&spans) else { return Err(TestCaseError::reject("short")) };
            let rollups = Rollups::of(&changes);
            let mut sums = vec![LevelSums::default(); spans.len()];
            let has = |at: i64| spans.iter().position(|span| span.start().as_millis() <= at && at < span.end().as_millis());
            let middle = |at: i64| at.div_euclid(DAY) * DAY + MIDDLE_OF_DAY;
            for day in days.0..days.1 {
                let index = has(middle(day * DAY)).unwrap();
                let one = [Piece::Buckets { width: Width::Day, first: day, end: day + 1 }];
                sums[index] = sums[index].merge(rollups.read(&changes, &one));
            }
            for piece in at_edges {
                let parts: Vec<_> = match piece {
                    Piece::Buckets { width: Width::Hour, first, end } => (first..end)
                        .map(|first| (first * HOUR, Piece::Buckets { width: Width::Hour, first, end: first + 1 }))
                        .collect(),
                    Piece::Buckets { .. } => panic!("{piece:?} is wider than an hour"),
                    Piece::Changes(span) => vec![(span.start().as_millis(), piece)],
                };
                for (start, part) in parts {
                    let part = rollups.read(&changes, &[part]);
                    if let Some(own) = has(start) {
                        sums[own] = sums[own].merge(part);
                    }
                    if let Some(of_day) = has(middle(start)) {
                        sums[of_day] = sums[of_day].without(part);
                    }
                }
            }
            let read = areas(rollups.read(&changes, &before(at(start))), &spans, &sums);
            let plain: Vec<_> = spans.iter().map(|span| area(&changes, *span)).collect();
            prop_assert_eq!(read, plain);
        }

        #[test]
        fn pieces_partition_the_span(start in START - 3 * DAY..START + 3 * DAY, length in 0..1_100 * DAY) {
            let span = Span::new(at(start), at(start + length));
            let mut reached = span.start();
            for piece in within(span) {
                let part = match piece {
                    Piece::Buckets { width, first, end } => Span::new(width.span(first).start(), width.span(end).start()),
                    Piece::Changes(part) => {
                        prop_assert!(part.millis() < i128::from(HOUR));
                        part
                    }
                };
                prop_assert_eq!(part.start(), reached);
                prop_assert!(!part.is_empty());
                reached = part.end();
            }
            prop_assert_eq!(reached, span.end());
        }

        #[test]
        fn rollups_do_not_depend_on_the_order_of_changes(
            (all, shuffled) in changes().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())), cut in 0..60_usize,
        ) {
            let (early, late) = shuffled.split_at(cut.min(shuffled.len()));
            let mut rollups = Rollups::of(early);
            for (place, sums) in Rollups::of(late).0 {
                let row = rollups.0.entry(place).or_default();
                *row = row.merge(sums);
            }
            prop_assert_eq!(rollups, Rollups::of(&all));
        }
    }
}
