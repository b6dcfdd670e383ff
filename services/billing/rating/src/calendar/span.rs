//! Spans of time and what of them counts.
//!
//! The problem: an instant on the edge of two spans must count once. The invariant: a span has its start and not its end, and
//! never ends before it starts.

use epoch::Timestamp;

/// The instants from `start` up to, and without, `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    start: Timestamp,
    end: Timestamp,
}

impl Span {
    /// The span between two instants; empty when `end` isn't after `start`.
    #[must_use]
    pub fn new(start: Timestamp, end: Timestamp) -> Self {
        Self { start, end: end.max(start) }
    }

    /// Its first instant, if it isn't empty.
    #[must_use]
    pub fn start(self) -> Timestamp {
        self.start
    }

    /// The first instant after it.
    #[must_use]
    pub fn end(self) -> Timestamp {
        self.end
    }

    /// How long it is, in milliseconds.
    #[must_use]
    pub fn millis(self) -> i128 {
        i128::from(self.end.as_millis()) - i128::from(self.start.as_millis())
    }

    /// Whether no instant is in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// What lies in both; empty when nothing does.
    #[must_use]
    pub fn intersect(self, other: Span) -> Span {
        Span::new(self.start.max(other.start), self.end.min(other.end))
    }
}

/// The period that is asked about, and the instant it is asked as of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// What is asked about.
    pub period: Span,
    /// What happened later hasn't happened yet; what still goes on counts up to here.
    pub as_of: Timestamp,
}

impl Window {
    /// The part of the period that counts: up to `as_of`.
    #[must_use]
    pub fn counted(self) -> Span {
        Span::new(self.period.start, self.period.end.min(self.as_of))
    }

    /// From when to when, both included, must be known what happened to answer: also to tell whether something goes on at
    /// `as_of` when that lies before the period. What happened earlier matters only by what it left behind.
    #[must_use]
    pub fn needed(self) -> (Timestamp, Timestamp) {
        let last = self.period.end.min(self.as_of);
        (self.period.start.min(last), last)
    }

    /// Whether what still goes on at `as_of` counts up to `as_of` only, rather than up to the period's end before it.
    #[must_use]
    pub fn is_cut(self) -> bool {
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
    fn a_span_never_ends_before_it_starts() {
        assert!(span(5, 3).is_empty() && span(5, 5).is_empty());
        assert_eq!(span(5, 3).millis(), 0);
        assert_eq!(span(0, 4).intersect(span(2, 9)), span(2, 4));
        assert!(span(0, 4).intersect(span(4, 9)).is_empty());
        assert!(span(0, 2).intersect(span(4, 9)).is_empty());
    }

    #[test]
    fn counts_up_to_the_earlier_of_end_and_as_of() {
        let window = |as_of| Window { period: span(10, 20), as_of: Timestamp::from_millis(as_of) };
        assert_eq!((window(15).counted(), window(15).is_cut()), (span(10, 15), true));
        assert_eq!((window(20).counted(), window(20).is_cut()), (span(10, 20), true));
        assert_eq!((window(21).counted(), window(21).is_cut()), (span(10, 20), false));
        assert!(window(9).counted().is_empty());
        let needed = |as_of| {
            let (first, last) = window(as_of).needed();
            (first.as_millis(), last.as_millis())
        };
        assert_eq!((needed(15), needed(21), needed(9)), ((10, 15), (10, 20), (9, 9)));
    }
}
