//! Rollup sums as they were read: before and within contiguous spans, by scope and subject.

use std::collections::BTreeMap;

use epoch::Timestamp;
use rating::{
    calendar::span::Span,
    metering::level::{LevelChange, LevelSums},
};
use uuid::Uuid;

use crate::{
    read_error::{ReadError, check_limit},
    rollup::{bucket::areas, scope::Scope},
    usage_row::RollupRow,
};

/// The sums of a subject before and within contiguous spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanSums {
    /// The sums of all changes before the first span.
    pub before: LevelSums,
    /// The sums of the changes in each span.
    pub within: Vec<LevelSums>,
}

impl SpanSums {
    fn zero(spans: usize) -> Self {
        Self { before: LevelSums::default(), within: vec![LevelSums::default(); spans] }
    }

    /// Returns the level at the end of the last span.
    #[must_use]
    pub fn level(&self) -> i128 {
        self.within.iter().fold(self.before, |sums, span| sums.merge(*span)).level()
    }

    /// Returns the area from `from`, the start of the first span, to `end`, the end of the last one.
    #[must_use]
    pub fn area(&self, from: Timestamp, end: Timestamp) -> i128 {
        let at_end = self.within.iter().fold(self.before, |sums, span| sums.merge(*span));
        at_end.area_until(end) - self.before.area_until(from)
    }

    /// Returns the area over each span; `spans` are the spans that were read, or the first of them.
    #[must_use]
    pub fn areas(&self, spans: &[Span]) -> Vec<i128> {
        areas(self.before, spans, &self.within)
    }

    fn subtract(&mut self, change: LevelChange, from: Timestamp, spans: &[Span]) {
        let mut sums = LevelSums::default();
        sums.add(change);
        if change.at < from {
            self.before = self.before.without(sums);
            return;
        }
        let index = spans.partition_point(|span| span.end() <= change.at);
        if spans.get(index).is_some_and(|span| span.start() <= change.at)
            && let Some(within) = self.within.get_mut(index)
        {
            *within = within.without(sums);
        }
    }
}

/// The sums of several scopes by subject. The nil id is the organization, and runs without a subject.
#[derive(Debug, Clone, Default)]
pub struct RollupSums(BTreeMap<(Scope, Uuid), SpanSums>);

impl RollupSums {
    /// Returns the sums of a scope that has the organization as its only subject.
    #[must_use]
    pub fn of_organization(&self, scope: Scope, spans: usize) -> SpanSums {
        self.0.get(&(scope, Uuid::nil())).cloned().unwrap_or_else(|| SpanSums::zero(spans))
    }

    /// Lists the subjects of a scope and their sums, by id; runs without a subject come first.
    pub fn of(&self, scope: Scope) -> impl Iterator<Item = (Option<Uuid>, &SpanSums)> {
        let all = self.0.range((scope, Uuid::nil())..=(scope, Uuid::max()));
        all.map(|((_, subject), sums)| ((!subject.is_nil()).then_some(*subject), sums))
    }

    /// Removes and returns the sums of a subject, after subtracting `late` changes, which they include.
    pub(crate) fn take(
        &mut self,
        scope: Scope,
        subject: Uuid,
        late: &[LevelChange],
        from: Timestamp,
        spans: &[Span],
    ) -> Option<SpanSums> {
        let mut sums = self.0.remove(&(scope, subject))?;
        for change in late {
            sums.subtract(*change, from, spans);
        }
        Some(sums)
    }

    /// Subtracts changes from sums that were read with this `from` and these spans. To add a change, negate it.
    pub fn subtract(&mut self, changes: &[(Scope, Option<Uuid>, LevelChange)], from: Timestamp, spans: &[Span]) {
        for (scope, subject, change) in changes {
            let key = (*scope, subject.unwrap_or_default());
            self.0.entry(key).or_insert_with(|| SpanSums::zero(spans.len())).subtract(*change, from, spans);
        }
    }

    /// Adds a row of the rollup statement, of at most `max_sums` sums in total.
    ///
    /// # Errors
    /// [`ReadError::LimitExceeded`].
    pub(crate) fn add_row(&mut self, row: &RollupRow, spans: usize, max_sums: i64) -> Result<(), ReadError> {
        if let Some(scope) = row.scope {
            self.add(scope, row.subject, row.span_index, row.sums, spans);
            check_limit(self.0.len().saturating_mul(spans), max_sums, "sums by subject")?;
        }
        Ok(())
    }

    /// Adds sums of a subject: before the first of `spans` spans at index 0, or within a span, counted from 1.
    pub(crate) fn add(&mut self, scope: Scope, subject: Uuid, span_index: i32, sums: LevelSums, spans: usize) {
        let of_subject = self.0.entry((scope, subject)).or_insert_with(|| SpanSums::zero(spans));
        let target = match usize::try_from(span_index) {
            Ok(0) => Some(&mut of_subject.before),
            Ok(span) => of_subject.within.get_mut(span - 1),
            Err(_) => None,
        };
        if let Some(target) = target {
            *target = target.merge(sums);
        }
    }
}
