//! Spans of time, and windows of evaluation.
//!
//! Invariant: a span includes its start, excludes its end, and never ends before it starts. So an instant
//! between two adjacent spans counts once.

use epoch::Timestamp;

/// The half-open interval `[start, end)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    start: Timestamp,
    end: Timestamp,
}

impl Span {
    /// Returns the span between two instants; empty unless `end` is later than `start`.
    #[must_use]
    pub fn new(start: Timestamp, end: Timestamp) -> Self {
        Self { start, end: end.max(start) }
    }

    /// Returns the first instant, unless the span is empty.
    #[must_use]
    pub fn start(self) -> Timestamp {
        self.start
    }

    /// Returns the exclusive end.
    #[must_use]
    pub fn end(self) -> Timestamp {
        self.end
    }

    /// Returns the length in milliseconds.
    #[must_use]
    pub fn millis(self) -> i128 {
        i128::from(self.end.as_millis()) - i128::from(self.start.as_millis())
    }

    /// Returns whether the span contains no instant.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Returns the intersection, which may be empty.
    #[must_use]
    pub fn intersect(self, other: Span) -> Span {
        Span::new(self.start.max(other.start), self.end.min(other.end))
    }
}

/// A period and the instant at which it is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub period: Span,
    /// The instant of evaluation: later events are ignored, and running jobs and stored files count up to
    /// here.
    pub as_of: Timestamp,
}

impl Window {
    /// Returns the part of the period up to `as_of`.
    #[must_use]
    pub fn counted(self) -> Span {
        Span::new(self.period.start, self.period.end.min(self.as_of))
    }

    /// Returns the first and the last instant (inclusive) whose changes the evaluation reads. It includes
    /// `as_of` when that lies before the period, to find out whether usage continues there. Earlier changes
    /// matter only through their sums.
    #[must_use]
    pub fn read_range(self) -> (Timestamp, Timestamp) {
        let last = self.period.end.min(self.as_of);
        (self.period.start.min(last), last)
    }

    /// Returns whether continuing usage counts up to `as_of` instead of an earlier end of the period, so that
    /// the result may be provisional.
    #[must_use]
    pub fn may_be_provisional(self) -> bool {
        self.as_of <= self.period.end
    }
}

#[cfg(test)]
mod tests {
    use super::{Span, Window};
    use epoch::Timestamp;

    fn span(start: i64, end: i64) -> Span {
        Span::new(Timestamp::from_millis(start), Timestamp::from_millis(end))
    }

    #[test]
    fn span_never_ends_before_it_starts() {
        assert!(span(5, 3).is_empty() && span(5, 5).is_empty());
        assert_eq!(span(5, 3).millis(), 0);
        assert_eq!(span(0, 4).intersect(span(2, 9)), span(2, 4));
        assert!(span(0, 4).intersect(span(4, 9)).is_empty());
        assert!(span(0, 2).intersect(span(4, 9)).is_empty());
    }

    #[test]
    fn window_counts_up_to_the_earlier_of_end_and_as_of() {
        let window = |as_of| Window { period: span(10, 20), as_of: Timestamp::from_millis(as_of) };
        assert_eq!((window(15).counted(), window(15).may_be_provisional()), (span(10, 15), true));
        assert_eq!((window(20).counted(), window(20).may_be_provisional()), (span(10, 20), true));
        assert_eq!((window(21).counted(), window(21).may_be_provisional()), (span(10, 20), false));
        assert!(window(9).counted().is_empty());
        let read_range = |as_of| {
            let (first, last) = window(as_of).read_range();
            (first.as_millis(), last.as_millis())
        };
        assert_eq!((read_range(15), read_range(21), read_range(9)), ((10, 15), (10, 20), (9, 9)));
    }
}
