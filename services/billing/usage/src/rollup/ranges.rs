//! Ranges of rollup buckets to read, as arguments of the rollup statement.
//!
//! A report on a month must cost as much as a month has days, however many events there are, and however many
//! there were before. The tables `metering_storage_sums` and `metering_run_sums` hold, for each [`Scope`] and
//! each bucket of each [width](Width), the sums of exactly the changes in it. One projection writes each
//! table, in the transaction that stores the changes, so both are rebuilt together. Rollups plus the changes
//! of the partial hours at the ends of spans are exact at every millisecond.

use epoch::Timestamp;
use rating::calendar::span::Span;
use sqlx::{Postgres, postgres::PgArguments, query::Query};
use uuid::Uuid;

use crate::rollup::{
    bucket::{MIDDLE_OF_DAY, Piece, Width, before, by_days, within},
    scope::Scope,
};

/// Reads rollups. Other statements append it by `union all`.
pub const STATEMENT: &str = include_str!("../queries/rollup_sums.sql");

/// Ranges of rollups to read, in columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RollupRanges {
    /// The starts of spans, and the end of the last one.
    pub(crate) edges: Vec<i64>,
    pub(crate) buckets: BucketRanges,
    pub(crate) changes: ChangeRanges,
    pub(crate) edge_hours: EdgeHours,
}

/// Ranges of buckets, in columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BucketRanges {
    pub(crate) meters: Vec<i16>,
    pub(crate) scopes: Vec<i16>,
    pub(crate) widths: Vec<i16>,
    pub(crate) millis: Vec<i64>,
    /// The offset from the start of a bucket to the instant that determines its span.
    pub(crate) shifts: Vec<i64>,
    pub(crate) firsts: Vec<i64>,
    pub(crate) ends: Vec<i64>,
    /// The index of the span that the range counts in, if it is fixed.
    pub(crate) fixed_spans: Vec<Option<i32>>,
}

/// Spans within hours for which changes are read, in columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ChangeRanges {
    pub(crate) meters: Vec<i16>,
    pub(crate) scopes: Vec<i16>,
    pub(crate) firsts: Vec<i64>,
    pub(crate) ends: Vec<i64>,
    /// The index of the span that the range counts in, if it is fixed.
    pub(crate) fixed_spans: Vec<Option<i32>>,
    /// Whether the span lies between an edge and its nearest midnight, so that it counts in another span than its
    /// day.
    pub(crate) at_edges: Vec<bool>,
}

/// Hours between edges and their nearest midnights, which count in another span than their day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct EdgeHours {
    pub(crate) hours: Vec<i64>,
    /// Whether to read storage.
    pub(crate) storage: bool,
    /// The scopes of runs to read.
    pub(crate) scopes: Vec<i16>,
}

/// The span that a piece counts in.
#[derive(Debug, Clone, Copy)]
enum Placement {
    /// The span that contains the start of the bucket plus this offset.
    Within(i64),
    /// The span with this index.
    In(i32),
    /// The span that contains the change, instead of the span of its day.
    AtEdge,
}

impl RollupRanges {
    /// Starts with contiguous spans and no ranges.
    pub(crate) fn within(spans: &[Span]) -> Self {
        let ends = spans.iter().map(|span| span.start()).chain(spans.last().map(|last| last.end()));
        Self { edges: ends.map(Timestamp::as_millis).collect(), ..Self::default() }
    }

    /// Adds these scopes, for each of the spans, which start at `from`, and for all time before.
    pub(crate) fn add(&mut self, scopes: &[Scope], from: Timestamp, spans: &[Span]) {
        let Some(by_days) = by_days(spans) else {
            for piece in merged_pieces(from, spans) {
                self.push(scopes, piece, Placement::Within(0));
            }
            return;
        };
        for piece in before(from) {
            self.push(scopes, piece, Placement::Within(0));
        }
        let days = Piece::Buckets { width: Width::Day, first: by_days.days.0, end: by_days.days.1 };
        self.push(scopes, days, Placement::Within(MIDDLE_OF_DAY));
        for piece in by_days.at_edges {
            match piece {
                Piece::Buckets { first, end, .. } => self.edge_hours.hours.extend(first..end),
                Piece::Changes(_) => self.push(scopes, piece, Placement::AtEdge),
            }
        }
        for (meter, scope) in scopes.iter().map(|scope| scope.numbers()) {
            match meter {
                1 => self.edge_hours.storage = true,
                _ => self.edge_hours.scopes.push(scope),
            }
        }
    }

    /// Adds these scopes for all time before `from`, and from `from` to `end` as if it were one span.
    pub(crate) fn add_whole(&mut self, scopes: &[Scope], from: Timestamp, end: Timestamp) {
        for piece in before(from) {
            self.push(scopes, piece, Placement::In(0));
        }
        for piece in within(Span::new(from, end)) {
            self.push(scopes, piece, Placement::In(1));
        }
    }

    /// Binds the arguments of the rollup statement, which come first in every statement that contains it.
    pub(crate) fn bind<'q>(self, statement: &'static str, organization: Uuid) -> Query<'q, Postgres, PgArguments> {
        let Self { edges, buckets, changes, edge_hours } = self;
        sqlx::query(statement)
            .bind(organization)
            .bind(edges)
            .bind(buckets.meters)
            .bind(buckets.scopes)
            .bind(buckets.widths)
            .bind(buckets.millis)
            .bind(buckets.shifts)
            .bind(buckets.firsts)
            .bind(buckets.ends)
            .bind(buckets.fixed_spans)
            .bind(changes.meters)
            .bind(changes.scopes)
            .bind(changes.firsts)
            .bind(changes.ends)
            .bind(changes.fixed_spans)
            .bind(changes.at_edges)
            .bind(edge_hours.hours)
            .bind(edge_hours.storage)
            .bind(edge_hours.scopes)
    }

    fn push(&mut self, scopes: &[Scope], piece: Piece, placement: Placement) {
        let (shift, fixed_span) = match placement {
            Placement::Within(shift) => (shift, None),
            Placement::In(span) => (0, Some(span)),
            Placement::AtEdge => (0, None),
        };
        for (meter, scope) in scopes.iter().map(|scope| scope.numbers()) {
            match piece {
                Piece::Buckets { width, first, end } => {
                    let to = &mut self.buckets;
                    to.meters.push(meter);
                    to.scopes.push(scope);
                    to.widths.push(width.number());
                    to.millis.push(width.millis());
                    to.shifts.push(shift);
                    to.firsts.push(first);
                    to.ends.push(end);
                    to.fixed_spans.push(fixed_span);
                }
                Piece::Changes(span) => {
                    let to = &mut self.changes;
                    to.meters.push(meter);
                    to.scopes.push(scope);
                    to.firsts.push(span.start().as_millis());
                    to.ends.push(span.end().as_millis());
                    to.fixed_spans.push(fixed_span);
                    to.at_edges.push(matches!(placement, Placement::AtEdge));
                }
            }
        }
    }
}

/// Returns the pieces of all time before `from`, and of contiguous spans from there on.
///
/// Adjacent pieces of one width are merged across spans: the starts of the spans tell which bucket belongs to which.
fn merged_pieces(from: Timestamp, spans: &[Span]) -> Vec<Piece> {
    let mut pieces = before(from);
    for piece in spans.iter().flat_map(|span| within(*span)) {
        match (pieces.last_mut(), piece) {
            (Some(Piece::Buckets { width: last, end: reached, .. }), Piece::Buckets { width, first, end })
                if *last == width && *reached == first =>
            {
                *reached = end;
            }
            (Some(Piece::Changes(last)), Piece::Changes(next)) if last.end() == next.start() => {
                *last = Span::new(last.start(), next.end());
            }
            _ => pieces.push(piece),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use epoch::Timestamp;

    use super::RollupRanges;
    use crate::rollup::scope::Scope;
    use rating::calendar::span::Span;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn month_reads_its_days_and_few_hours_in_every_zone() {
        // October 2025, starting on the hour, on the half hour, after noon and a millisecond before the hour.
        for (shift, hours, cuts) in
            [(0, 0, 0), (-2 * HOUR, 2, 0), (-11 * HOUR / 2, 5, 32), (14 * HOUR, 10, 0), (-1, 0, 32)]
        {
            let day = |number: i64| Timestamp::from_millis(1_759_276_800_000 + shift + number * 24 * HOUR);
            let days: Vec<_> = (0..31).map(|number| Span::new(day(number), day(number + 1))).collect();
            let mut ranges = RollupRanges::within(&days);
            ranges.add(&[Scope::Storage], day(0), &days);
            assert_eq!(ranges.edge_hours.hours.len(), 32 * hours, "{shift}");
            let bucket_ranges = ranges.buckets.firsts.iter().zip(&ranges.buckets.ends);
            let buckets: i64 = bucket_ranges.map(|(first, end)| end.saturating_sub((*first).max(0))).sum();
            assert!(buckets < 31 + 100, "{shift}: {buckets} buckets");
            assert_eq!((ranges.edges.len(), ranges.changes.firsts.len() / 32 * 32), (32, cuts), "{shift}");
            let mut ranges = RollupRanges::within(&days);
            ranges.add_whole(&[Scope::RunningByUser], day(0), day(31));
            assert!(ranges.buckets.firsts.len() <= 9, "{shift}: {} ranges", ranges.buckets.firsts.len());
            assert!(ranges.changes.firsts.len() <= 3, "{shift}");
        }
    }
}
