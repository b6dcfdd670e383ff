//! What an organization used, as the read models have it.

use std::collections::BTreeMap;

use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    domain::{
        compute::JobRun,
        metering::{LevelChange, areas, level_at},
        rating::{Metered, Term},
        span::{Span, Window},
    },
    projections::{runs, storage_changes},
};

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
        let files = storage_changes::changes(pool, organization, window).await?;
        let runs = runs::runs(pool, organization, window).await?;
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
    pub fn stored_at(&self, at: epoch::Timestamp) -> i128 {
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
