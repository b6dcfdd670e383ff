//! The spans to read rollups for.

use epoch::Timestamp;
use rating::calendar::span::{Span, Window};

use crate::rollup::span_sums::SpanSums;

/// The spans of a query, as rollups are read for them.
///
/// If usage may continue at `as_of`, a last span of one millisecond adds the changes at that very instant, so that
/// the level at the end shows whether the result is provisional.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReadSpans {
    pub(super) from: Timestamp,
    pub(super) spans: Vec<Span>,
}

impl ReadSpans {
    pub(super) fn of(window: Window, spans: &[Span]) -> Self {
        let (from, as_of) = (window.counted().start(), window.as_of);
        if !window.may_be_provisional() {
            return Self { from, spans: spans.to_vec() };
        }
        let after = Timestamp::from_millis(as_of.as_millis().saturating_add(1));
        if as_of < from {
            return Self { from: after, spans: Vec::new() };
        }
        let mut read: Vec<_> = spans.iter().copied().filter(|span| !span.is_empty()).collect();
        read.push(Span::new(as_of, after));
        Self { from, spans: read }
    }

    /// Returns the area over all requested spans, which end at `end`.
    pub(super) fn area(&self, sums: &SpanSums, end: Timestamp) -> i128 {
        if self.spans.is_empty() { 0 } else { sums.area(self.from, end) }
    }

    /// Returns the areas over the requested spans.
    pub(super) fn areas(&self, sums: &SpanSums, spans: &[Span]) -> Vec<i128> {
        let mut areas = self.spans.iter().zip(sums.areas(&self.spans));
        let area = |span: &Span| match span.is_empty() {
            true => 0,
            false => areas.find(|(of, _)| *of == span).map_or(0, |(_, area)| area),
        };
        spans.iter().map(area).collect()
    }
}
