//! The integral of a level over time, such as bytes × milliseconds.
//!
//! Changes arrive late, in any order and in large numbers, and the integral must be exact. With changes δ at
//! t, the area over `[a, b)` is `Σ δ·(b − max(a, t))` over all t < b, as an `i128`. It follows from two sums,
//! `S0 = Σδ` and `S1 = Σδ·t` ([`LevelSums`]): the area up to T is `S0·T − S1`. Sums merge and do not depend
//! on the order of changes. A change that is given twice counts twice, so callers must deduplicate.
//!
//! Example: 100 bytes stored at t = 10 and freed at t = 40 give S0 = 0 and S1 = 100·10 − 100·40 = −3000, so
//! the area up to any T ≥ 40 is 3000 byte-milliseconds.
//!
//! Bounds: a change is below 2⁶³ and an instant of the calendar (±9999 years) below 2⁴⁹. So 2¹⁴ changes of
//! maximum size, or 2³⁰ changes of files of up to 128 TiB, stay below 2¹²⁷.

use epoch::Timestamp;

use crate::calendar::span::Span;

/// A change of a level: of the bytes of a file, or of the number of running jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelChange {
    pub at: Timestamp,
    pub delta: i64,
}

/// The sums S0 and S1 of level changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LevelSums {
    /// S0: the sum of all δ, which is the level.
    deltas: i128,
    /// S1: the sum of all δ·t.
    moments: i128,
}

impl LevelSums {
    /// Adds a change.
    pub fn add(&mut self, change: LevelChange) {
        let delta = i128::from(change.delta);
        self.deltas += delta;
        self.moments += delta * i128::from(change.at.as_millis());
    }

    /// Creates the sums from stored S0 and S1.
    #[must_use]
    pub const fn new(deltas: i128, moments: i128) -> Self {
        Self { deltas, moments }
    }

    /// Returns S0 and S1.
    #[must_use]
    pub const fn parts(self) -> (i128, i128) {
        (self.deltas, self.moments)
    }

    /// Subtracts the sums of changes that are included in these.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self { deltas: self.deltas - other.deltas, moments: self.moments - other.moments }
    }

    /// Adds the sums of other changes.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self { deltas: self.deltas + other.deltas, moments: self.moments + other.moments }
    }

    /// Returns the level after these changes.
    #[must_use]
    pub fn level(self) -> i128 {
        self.deltas
    }

    /// Returns the area up to `until`. No change may be later than `until`.
    #[must_use]
    pub fn area_until(self, until: Timestamp) -> i128 {
        self.deltas * i128::from(until.as_millis()) - self.moments
    }
}

/// Returns the area over one span.
#[must_use]
pub fn area(changes: &[LevelChange], span: Span) -> i128 {
    let (mut at_start, mut at_end) = (LevelSums::default(), LevelSums::default());
    for change in changes {
        if change.at < span.start() {
            at_start.add(*change);
        }
        if change.at < span.end() {
            at_end.add(*change);
        }
    }
    at_end.area_until(span.end()) - at_start.area_until(span.start())
}

/// Returns the areas over contiguous spans in one pass over the changes.
///
/// Instants are counted from the start of the first span, so that the length of the spans bounds the sums,
/// not the calendar.
#[must_use]
pub fn areas(changes: &[LevelChange], spans: impl IntoIterator<Item = Span>) -> Vec<i128> {
    let mut spans = spans.into_iter().peekable();
    let Some(origin) = spans.peek().map(|first| first.start()) else { return Vec::new() };
    let since = |at: Timestamp| Timestamp::from_millis(at.as_millis().saturating_sub(origin.as_millis()));
    let mut sorted = changes.to_vec();
    sorted.sort_unstable_by_key(|change| change.at);
    let mut upcoming = sorted.into_iter().peekable();
    let mut sums = LevelSums::default();
    let mut area_until = |until: Timestamp| {
        while let Some(change) = upcoming.next_if(|change| change.at < until) {
            sums.add(LevelChange { at: since(change.at.max(origin)), ..change });
        }
        sums.area_until(since(until))
    };
    let mut areas = Vec::new();
    for span in spans {
        let before = area_until(span.start());
        areas.push(area_until(span.end()) - before);
    }
    areas
}

/// Returns the level at an instant, including changes at that instant.
#[must_use]
pub fn level_at(changes: &[LevelChange], at: Timestamp) -> i128 {
    changes.iter().filter(|change| change.at <= at).map(|change| i128::from(change.delta)).sum()
}

/// A non-empty span with a constant level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub span: Span,
    pub level: i128,
}

/// Splits a span where the level changes. Changes at the same instant are one change.
#[must_use]
pub fn segments(changes: &[LevelChange], span: Span) -> Vec<Segment> {
    let mut sorted = changes.to_vec();
    sorted.sort_unstable_by_key(|change| change.at);
    let mut segments = Vec::new();
    let (mut start, mut level) = (span.start(), 0_i128);
    for change in sorted.iter().filter(|change| change.at < span.end()) {
        let before = Span::new(start, change.at);
        if !before.is_empty() {
            segments.push(Segment { span: before, level });
        }
        start = before.end();
        level += i128::from(change.delta);
    }
    let rest = Span::new(start, span.end());
    if !rest.is_empty() {
        segments.push(Segment { span: rest, level });
    }
    segments
}

/// Returns the sum of the areas of segments.
#[must_use]
pub fn area_of(segments: &[Segment]) -> i128 {
    segments.iter().map(|segment| segment.level * segment.span.millis()).sum()
}

#[cfg(test)]
mod tests {
    use epoch::Timestamp;
    use proptest::{collection::vec, prelude::*};

    use super::{LevelChange, LevelSums, area, area_of, areas, level_at, segments};
    use crate::calendar::span::Span;

    fn change(at: i64, delta: i64) -> LevelChange {
        LevelChange { at: Timestamp::from_millis(at), delta }
    }

    fn span(start: i64, end: i64) -> Span {
        Span::new(Timestamp::from_millis(start), Timestamp::from_millis(end))
    }

    /// Few distinct instants, so that many changes coincide, and sizes up to the maximum.
    fn changes() -> impl Strategy<Value = Vec<LevelChange>> {
        let delta = prop_oneof![-5..=5_i64, any::<i64>()];
        let at = prop_oneof![-20..20_i64, 1_700_000_000_000..1_800_000_000_000_i64];
        vec((at, delta).prop_map(|(at, delta)| change(at, delta)), 0..40)
    }

    fn instants(count: usize) -> impl Strategy<Value = Vec<i64>> {
        let instant = prop_oneof![-25..25_i64, 1_600_000_000_000..1_900_000_000_000_i64];
        vec(instant, count).prop_map(|mut instants| {
            instants.sort_unstable();
            instants
        })
    }

    /// The formula of the module documentation, literally.
    fn formula(changes: &[LevelChange], span: Span) -> i128 {
        let (a, b) = (i128::from(span.start().as_millis()), i128::from(span.end().as_millis()));
        let mut area = 0;
        for change in changes {
            let t = i128::from(change.at.as_millis());
            if t < b {
                area += i128::from(change.delta) * (b - a.max(t));
            }
        }
        area
    }

    #[test]
    fn area_follows_a_file_that_grows_and_is_deleted() {
        let changes = [change(10, 100), change(20, 50), change(40, -150)];
        assert_eq!(area(&changes, span(0, 100)), 100 * 10 + 150 * 20);
        assert_eq!(area(&changes, span(15, 25)), 100 * 5 + 150 * 5);
        assert_eq!(area(&changes, span(40, 100)), 0);
        assert_eq!(area(&changes, span(0, 10)), 0);
        assert_eq!(area(&changes, span(25, 25)), 0);
        let at = Timestamp::from_millis;
        assert_eq!((level_at(&changes, at(9)), level_at(&changes, at(10))), (0, 100));
        assert_eq!((level_at(&changes, at(39)), level_at(&changes, at(40))), (150, 0));
    }

    #[test]
    fn negative_level_is_not_clamped() {
        let changes = [change(0, 5), change(10, -8)];
        assert_eq!(area(&changes, span(0, 20)), 50 - 30);
        let levels: Vec<_> = segments(&changes, span(0, 20)).iter().map(|segment| segment.level).collect();
        assert_eq!(levels, [5, -3]);
    }

    #[test]
    fn changes_at_one_instant_are_one_change() {
        let changes = [change(10, -7), change(10, 7), change(10, 3)];
        let levels: Vec<_> = segments(&changes, span(0, 20)).iter().map(|segment| segment.level).collect();
        assert_eq!(levels, [0, 3]);
    }

    proptest! {
        #[test]
        fn sums_segments_and_formula_agree(changes in changes(), ends in instants(2)) {
            let span = span(ends[0], ends[1]);
            let expected = formula(&changes, span);
            prop_assert_eq!(area(&changes, span), expected);
            prop_assert_eq!(area_of(&segments(&changes, span)), expected);
            prop_assert_eq!(areas(&changes, [span]), [expected]);
        }

        #[test]
        fn segments_partition_the_span(changes in changes(), ends in instants(2)) {
            let span = span(ends[0], ends[1]);
            let segments = segments(&changes, span);
            let mut at = span.start();
            for segment in &segments {
                prop_assert!(!segment.span.is_empty());
                prop_assert_eq!(segment.span.start(), at);
                at = segment.span.end();
            }
            prop_assert_eq!(at, span.end());
        }

        #[test]
        fn areas_add_up_over_any_split(changes in changes(), cuts in instants(8)) {
            let spans: Vec<_> = cuts.windows(2).map(|ends| span(ends[0], ends[1])).collect();
            let parts = areas(&changes, spans.iter().copied());
            for (part, span) in parts.iter().zip(&spans) {
                prop_assert_eq!(*part, area(&changes, *span));
            }
            prop_assert_eq!(parts.iter().sum::<i128>(), area(&changes, span(cuts[0], cuts[7])));
        }

        #[test]
        fn order_does_not_matter(
            (changes, shuffled) in changes().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
            cuts in instants(3),
        ) {
            let spans = [span(cuts[0], cuts[1]), span(cuts[1], cuts[2])];
            prop_assert_eq!(areas(&changes, spans), areas(&shuffled, spans));
            prop_assert_eq!(area(&changes, spans[0]), area(&shuffled, spans[0]));
            prop_assert_eq!(segments(&changes, spans[0]), segments(&shuffled, spans[0]));
            prop_assert_eq!(area_of(&segments(&changes, spans[1])), area_of(&segments(&shuffled, spans[1])));
        }

        #[test]
        fn sums_merge(changes in changes(), at in 0..40_usize, late in 1..1_000_i64) {
            let until = Timestamp::from_millis(1_900_000_000_000 + late);
            let sum = |changes: &[LevelChange]| {
                let mut sums = LevelSums::default();
                changes.iter().for_each(|change| sums.add(*change));
                sums
            };
            let (left, right) = changes.split_at(at.min(changes.len()));
            let merged = sum(left).merge(sum(right));
            prop_assert_eq!(merged, sum(&changes));
            prop_assert_eq!(merged.level(), level_at(&changes, until));
            prop_assert_eq!(merged.area_until(until), area(&changes, Span::new(Timestamp::from_millis(i64::MIN / 2), until)));
        }
    }
}
