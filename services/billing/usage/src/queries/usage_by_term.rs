//! Usage by term, by day and by interval, for invoices and budgets: both meters of the whole organization.
//!
//! A month is charged by term, displayed by day and compared under several plans, but read once. The counted part of
//! the period is split wherever a requested span starts or ends, and rollups are read for these elementary spans.
//! Each requested span is the sum of its elementary spans, so terms and days both sum to the month, and reading
//! costs days. The [lifetime usage](lifetime_usage) up to an instant follows from the sums of all earlier changes,
//! which are a few dozen rows.

use std::collections::{BTreeMap, BTreeSet};

use epoch::Timestamp;
use rating::{
    calendar::span::{Span, Window},
    rating::usage_amounts::UsageAmounts,
};
use sqlx::{PgPool, Row as _};
use uuid::Uuid;

use crate::{
    queries::{
        evaluation::{ListPages, RollupSelection},
        late_records::LateRecords,
        read_spans::ReadSpans,
        snapshot::Snapshot,
        usage_query::UsageQuery,
    },
    read_error::ReadError,
    rollup::scope::Scope,
};

/// Both meters of the organization.
const BOTH_METERS: RollupSelection<'static> =
    RollupSelection { scopes: &[Scope::Storage, Scope::Running], whole: &[], hidden: true };

/// The spans to sum up usage for. Spans of different lists may overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UsageSpans<'a> {
    /// The terms of the account.
    pub terms: &'a [Span],
    /// The days of the period.
    pub days: &'a [Span],
    /// Days split where another term starts.
    pub intervals: &'a [Span],
}

/// Usage in the counted part of each requested span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageByTerm {
    /// Usage by term.
    pub by_term: Vec<UsageAmounts>,
    /// Usage by day.
    pub by_day: Vec<UsageAmounts>,
    /// Usage by interval.
    pub by_interval: Vec<UsageAmounts>,
    /// Whether a running job or a stored file counts only up to `as_of`.
    pub provisional: bool,
}

/// All usage before an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifetimeUsage {
    /// Amounts by meter.
    pub used: UsageAmounts,
    /// The bytes stored at the instant, including changes at that very instant.
    pub stored_bytes: i128,
}

/// Reads all usage of an organization before an instant, and its stored bytes at that instant.
///
/// # Errors
/// [`ReadError`].
pub async fn lifetime_usage(pool: &PgPool, organization: Uuid, before: Timestamp) -> Result<LifetimeUsage, ReadError> {
    let after = |millis| Timestamp::from_millis(before.as_millis().saturating_add(millis));
    let instant = Span::new(before, after(1));
    // Evaluate after the end of the period, so that no extra span is read.
    let window = Window { period: instant, as_of: after(2) };
    let query = UsageQuery { organization, window, known_at: None };
    let read_spans = ReadSpans::of(window, &[instant]);
    let (late, pages) = (LateRecords::default(), ListPages::default());
    let mut connection = pool.acquire().await?;
    let rows = query.read(&mut connection, &late, BOTH_METERS, &read_spans, pages).await?;
    let [storage, running] =
        [Scope::Storage, Scope::Running].map(|scope| rows.sums.of_organization(scope, read_spans.spans.len()));
    let used = UsageAmounts::of(storage.before.area_until(before), running.before.area_until(before));
    Ok(LifetimeUsage { used, stored_bytes: storage.level() })
}

impl Snapshot {
    /// Sums up usage in the requested spans.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn usage_by_term(&mut self, requested: UsageSpans<'_>) -> Result<UsageByTerm, ReadError> {
        let UsageSpans { terms, days, intervals } = requested;
        let elementary = elementary_spans(self.counted(), &[terms, days, intervals]);
        let read_spans = ReadSpans::of(self.query.window, &elementary);
        let rows = self.read(BOTH_METERS, &read_spans, ListPages::default()).await?;
        let by_span = self.query.usage_by_span(&rows, &read_spans, &elementary);
        let both = by_span.byte_ms.into_iter().zip(by_span.run_ms);
        let amounts: Vec<_> = both.map(|(byte_ms, run_ms)| UsageAmounts::of(byte_ms, run_ms)).collect();
        let of = |spans: &[Span]| spans.iter().map(|span| sum_within(*span, &elementary, &amounts)).collect();
        Ok(UsageByTerm {
            by_term: of(terms),
            by_day: of(days),
            by_interval: of(intervals),
            provisional: by_span.storage_provisional || by_span.compute_provisional,
        })
    }

    /// Returns the user of the first run of each job, as of the evaluation and as known. Jobs without a run have no
    /// entry.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn first_users(&mut self, jobs: &[Uuid]) -> Result<BTreeMap<Uuid, Option<Uuid>>, ReadError> {
        let (_, last) = self.query.window.read_range();
        let query = "select distinct on (job_id) job_id, user_id from job_moments \
             where job_id = any($1) and kind = 1 and at <= $2 and ($3::bigint is null or recorded_at <= $3) \
             order by job_id, version";
        let query = sqlx::query(query).bind(jobs).bind(last.as_millis());
        let known_at = self.query.known_at.map(Timestamp::as_millis);
        let mut users = BTreeMap::new();
        for row in &query.bind(known_at).fetch_all(&mut *self.connection).await? {
            users.insert(row.try_get("job_id")?, row.try_get("user_id")?);
        }
        Ok(users)
    }
}

/// Splits the counted period wherever a requested span starts or ends.
fn elementary_spans(counted: Span, requested: &[&[Span]]) -> Vec<Span> {
    let mut cuts = BTreeSet::from([counted.start(), counted.end()]);
    for span in requested.iter().copied().flatten() {
        let span = span.intersect(counted);
        if !span.is_empty() {
            cuts.extend([span.start(), span.end()]);
        }
    }
    let cuts: Vec<_> = cuts.into_iter().collect();
    cuts.windows(2).filter_map(|ends| Some(Span::new(*ends.first()?, *ends.last()?))).collect()
}

/// Sums up the elementary spans within a span.
fn sum_within(span: Span, elementary: &[Span], amounts: &[UsageAmounts]) -> UsageAmounts {
    let first = elementary.partition_point(|part| part.start() < span.start());
    let within = elementary.iter().zip(amounts).skip(first).take_while(|(part, _)| part.end() <= span.end());
    within.flat_map(|(_, amounts)| amounts.iter()).collect()
}

#[cfg(test)]
mod tests {
    use epoch::Timestamp;
    use proptest::{collection::vec, prelude::*};

    use super::{elementary_spans, sum_within};
    use rating::{calendar::span::Span, pricing::meter::Meter, rating::usage_amounts::UsageAmounts};

    fn span((start, end): (i64, i64)) -> Span {
        Span::new(Timestamp::from_millis(start), Timestamp::from_millis(end))
    }

    proptest! {
        /// With one unit a millisecond, the sum of a span is the length of its counted part.
        #[test]
        fn elementary_spans_sum_to_each_requested_span(
            counted in (0..50_i64, 0..50_i64),
            days in vec((-10..60_i64, -10..60_i64), 0..6), terms in vec((-10..60_i64, -10..60_i64), 0..4),
        ) {
            let counted = span(counted);
            let lists: Vec<Vec<Span>> = [days, terms].into_iter().map(|list| list.into_iter().map(span).collect()).collect();
            let lists: Vec<&[Span]> = lists.iter().map(Vec::as_slice).collect();
            let elementary = elementary_spans(counted, &lists);
            let amounts: Vec<_> = elementary.iter().map(|part| UsageAmounts::of(part.millis(), 0)).collect();
            prop_assert_eq!(elementary.iter().map(|part| part.millis()).sum::<i128>(), counted.millis());
            for span in lists.iter().copied().flatten() {
                prop_assert_eq!(sum_within(*span, &elementary, &amounts).get(Meter::Storage), span.intersect(counted).millis());
            }
        }
    }
}
