//! What an organization used, as the read models have it.

use std::collections::BTreeMap;

use epoch::Timestamp;
use futures::TryStreamExt;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::domain::{
    compute::JobRun,
    metering::{LevelChange, areas, level_at},
    rating::{Metered, Term},
    runs::Run,
    span::{Span, Window},
};

/// What a file held before, as one change at the beginning, and each change since, up to and with `$3`.
const CHANGES: &str = "select file_id, $2::bigint as at, sum(delta_bytes)::bigint as delta_bytes from storage_changes \
     where organization_id = $1 and at < $2 group by file_id having sum(delta_bytes) <> 0 \
     union all \
     select file_id, at, delta_bytes from storage_changes \
     where organization_id = $1 and at >= $2 and at <= $3";

/// `least` and `greatest` pass over what is null.
const RUNS: &str = "select job_id, user_id, started_at, ended_at from runs where organization_id = $1 \
     and (ended_at is null or ended_at >= $2 or started_at >= $2) and least(started_at, ended_at) <= $3";

/// What an organization stored and ran in a window.
#[derive(Debug, Clone)]
pub struct Used {
    window: Window,
    /// How each file's size changes.
    pub files: BTreeMap<Uuid, Vec<LevelChange>>,
    /// When jobs ran.
    pub runs: Vec<JobRun<Uuid, Uuid>>,
}

impl Used {
    /// Reads it.
    ///
    /// # Errors
    /// When the database gives no answer.
    pub async fn read(pool: &PgPool, organization: Uuid, window: Window) -> Result<Self, sqlx::Error> {
        let (first, last) = window.needed();
        let asked =
            |query: &'static str| sqlx::query(query).bind(organization).bind(first.as_millis()).bind(last.as_millis());
        let mut files: BTreeMap<Uuid, Vec<LevelChange>> = BTreeMap::new();
        let mut changes = asked(CHANGES).fetch(pool);
        while let Some(row) = changes.try_next().await? {
            let at = Timestamp::from_millis(row.try_get("at")?);
            let change = LevelChange { at, delta: row.try_get("delta_bytes")? };
            files.entry(row.try_get("file_id")?).or_default().push(change);
        }
        drop(changes);
        let mut runs = Vec::new();
        let mut found = asked(RUNS).fetch(pool);
        while let Some(row) = found.try_next().await? {
            let instant = |millis: Option<i64>| millis.map(Timestamp::from_millis);
            let run =
                Run { started_at: instant(row.try_get("started_at")?), ended_at: instant(row.try_get("ended_at")?) };
            runs.push(JobRun { job: row.try_get("job_id")?, user: row.try_get("user_id")?, run });
        }
        drop(found);
        Ok(Self { window, files, runs })
    }

    /// How much of each meter in spans that follow each other.
    pub fn metered(&self, spans: impl Iterator<Item = Span>) -> Vec<Metered> {
        let counted = self.window.counted();
        let spans: Vec<_> = spans.map(|span| span.intersect(counted)).collect();
        let stored: Vec<_> = self.files.values().flatten().copied().collect();
        let as_of = self.window.as_of;
        let running: Vec<_> = self.runs.iter().filter_map(|run| run.run.level_changes(as_of)).flatten().collect();
        let both = areas(&stored, spans.iter().copied()).into_iter().zip(areas(&running, spans));
        both.map(|(byte_ms, run_ms)| Metered { byte_ms, run_ms }).collect()
    }

    /// How much of each meter in each term.
    #[must_use]
    pub fn by_term(&self, terms: &[Term]) -> Vec<(Term, Metered)> {
        terms.iter().cloned().zip(self.metered(terms.iter().map(|term| term.span))).collect()
    }

    /// What is stored at an instant of the window, in bytes.
    #[must_use]
    pub fn stored_at(&self, at: Timestamp) -> i128 {
        self.files.values().map(|changes| level_at(changes, at)).sum()
    }

    /// Whether something still runs or is still stored that counts only up to `as_of`.
    #[must_use]
    pub fn provisional(&self) -> bool {
        let Window { as_of, .. } = self.window;
        let is_stored = || self.files.values().any(|changes| level_at(changes, as_of) != 0);
        let runs = || self.runs.iter().any(|run| run.run.as_of(as_of).goes_on());
        self.window.is_cut() && (is_stored() || runs())
    }
}
