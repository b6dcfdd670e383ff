//! What invoices and budgets need of usage: both meters of the whole organization, in any spans.
//!
//! The problem: a month is charged by term, shown by day and compared under several plans, and must be read once.
//!
//! The invariant: whatever spans are wanted, the counted part of the period is cut where any of them begins or ends, and read as
//! sums by these pieces; a wanted span is the sum of its pieces. So terms sum to the month and days do, and reading costs days.
//! All that was [ever] used before an instant follows from the two sums of all changes before it, which are a few dozen rows.

use std::collections::{BTreeMap, BTreeSet};

use epoch::Timestamp;
use rating::{
    calendar::span::{Span, Window},
    rating::usage_amounts::Metered,
};
use sqlx::{PgPool, Row as _};
use uuid::Uuid;

use crate::{
    queries::{
        question::Asked,
        reading::{Cut, Late, Pages, Sought},
        snapshot::Snapshot,
    },
    read_error::ReadError,
    rollup::sums::Scope,
};

/// Of the whole organization.
const BOTH: Sought<'static> = Sought { scopes: &[Scope::Storage, Scope::Running], whole: &[], hidden: true };

/// How much was used in lists of spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charged<const LISTS: usize> {
    /// Of each list, how much of each meter in each of its spans, as far as it counts.
    pub lists: [Vec<Metered>; LISTS],
    /// Whether something still runs or is still stored that counts only up to `as_of`.
    pub provisional: bool,
}

/// All that was used before an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ever {
    /// Of each meter.
    pub used: Metered,
    /// How many bytes are stored at the instant, with what changes at that very instant.
    pub stored_bytes: i128,
}

/// All that an organization used before an instant, and what it stores then.
///
/// # Errors
/// [`ReadError`].
pub async fn ever(pool: &PgPool, organization: Uuid, before: Timestamp) -> Result<Ever, ReadError> {
    let after = |millis| Timestamp::from_millis(before.as_millis().saturating_add(millis));
    let instant = Span::new(before, after(1));
    // Nothing is cut off at the instant's end.
    let window = Window { period: instant, as_of: after(2) };
    let asked = Asked { organization, window, known_at: None };
    let cut = Cut::of(window, &[instant]);
    let mut connection = pool.acquire().await?;
    let found = asked.read(&mut connection, &Late::default(), BOTH, &cut, Pages::default()).await?;
    let [storage, running] = [Scope::Storage, Scope::Running].map(|scope| found.sums.only(scope, cut.spans.len()));
    let used = Metered { byte_ms: storage.before.area_until(before), run_ms: running.before.area_until(before) };
    Ok(Ever { used, stored_bytes: storage.level() })
}

impl Snapshot {
    /// How much of each meter in each of the spans wanted; the spans of several lists may overlap.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn charged<const LISTS: usize>(&mut self, wanted: [&[Span]; LISTS]) -> Result<Charged<LISTS>, ReadError> {
        let pieces = pieces(self.counted(), &wanted);
        let cut = Cut::of(self.asked.window, &pieces);
        let found = self.read(BOTH, &cut, Pages::default()).await?;
        let totals = self.asked.totals(&found, &cut, &pieces);
        let both = totals.byte_ms.into_iter().zip(totals.run_ms);
        let metered: Vec<_> = both.map(|(byte_ms, run_ms)| Metered { byte_ms, run_ms }).collect();
        Ok(Charged {
            lists: wanted.map(|spans| spans.iter().map(|span| within(*span, &pieces, &metered)).collect()),
            provisional: totals.storage_provisional || totals.compute_provisional,
        })
    }

    /// For whom jobs ran first, by what had happened and was known; nothing of jobs that never ran.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn ran_by(&mut self, jobs: &[Uuid]) -> Result<BTreeMap<Uuid, Option<Uuid>>, ReadError> {
        let (_, last) = self.asked.window.needed();
        let query = "select distinct on (job_id) job_id, user_id from job_moments \
             where job_id = any($1) and kind = 1 and at <= $2 and ($3::bigint is null or recorded_at <= $3) \
             order by job_id, version";
        let query = sqlx::query(query).bind(jobs).bind(last.as_millis());
        let known_at = self.asked.known_at.map(Timestamp::as_millis);
        let mut users = BTreeMap::new();
        for row in &query.bind(known_at).fetch_all(&mut *self.connection).await? {
            users.insert(row.try_get("job_id")?, row.try_get("user_id")?);
        }
        Ok(users)
    }
}

/// What counts, cut where any of the spans begins or ends.
fn pieces(counted: Span, wanted: &[&[Span]]) -> Vec<Span> {
    let mut cuts = BTreeSet::from([counted.start(), counted.end()]);
    for span in wanted.iter().copied().flatten() {
        let span = span.intersect(counted);
        if !span.is_empty() {
            cuts.extend([span.start(), span.end()]);
        }
    }
    let cuts: Vec<_> = cuts.into_iter().collect();
    cuts.windows(2).filter_map(|ends| Some(Span::new(*ends.first()?, *ends.last()?))).collect()
}

/// The sum of the pieces that lie in a span.
fn within(span: Span, pieces: &[Span], metered: &[Metered]) -> Metered {
    let first = pieces.partition_point(|piece| piece.start() < span.start());
    let mut sum = Metered::default();
    for (piece, metered) in pieces.iter().zip(metered).skip(first) {
        if piece.end() > span.end() {
            break;
        }
        sum = sum.plus(*metered);
    }
    sum
}

#[cfg(test)]
mod tests {
    use epoch::Timestamp;
    use proptest::{collection::vec, prelude::*};

    use super::{pieces, within};
    use rating::{calendar::span::Span, rating::usage_amounts::Metered};

    fn span((start, end): (i64, i64)) -> Span {
        Span::new(Timestamp::from_millis(start), Timestamp::from_millis(end))
    }

    proptest! {
        /// With one unit a millisecond, a span's sum is as long as what of it counts.
        #[test]
        fn pieces_sum_to_every_span_that_is_wanted(
            counted in (0..50_i64, 0..50_i64),
            days in vec((-10..60_i64, -10..60_i64), 0..6), terms in vec((-10..60_i64, -10..60_i64), 0..4),
        ) {
            let counted = span(counted);
            let lists: Vec<Vec<Span>> = [days, terms].into_iter().map(|list| list.into_iter().map(span).collect()).collect();
            let lists: Vec<&[Span]> = lists.iter().map(Vec::as_slice).collect();
            let pieces = pieces(counted, &lists);
            let metered: Vec<_> = pieces.iter().map(|piece| Metered { byte_ms: piece.millis(), run_ms: 0 }).collect();
            prop_assert_eq!(pieces.iter().map(|piece| piece.millis()).sum::<i128>(), counted.millis());
            for span in lists.iter().copied().flatten() {
                prop_assert_eq!(within(*span, &pieces, &metered).byte_ms, span.intersect(counted).millis());
            }
        }
    }
}
