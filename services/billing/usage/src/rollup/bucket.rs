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
mod tests;
