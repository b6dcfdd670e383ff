//! Records that were not known yet at the `known_at` of a query.

use std::collections::BTreeSet;

use epoch::Timestamp;
use rating::metering::{compute::JobRun, level::LevelChange};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    queries::{
        read_spans::ReadSpans,
        usage_query::{MAX_CHANGES, UsageQuery},
        usage_statement::UsageRows,
    },
    read_error::ReadError,
    read_models::{
        runs,
        storage_changes::{self, Changes},
    },
    rollup::{scope::Scope, span_sums::RollupSums},
};

/// Changes and runs recorded after `known_at`. Rollups include them, so they are subtracted.
#[derive(Debug, Default)]
pub(super) struct LateRecords {
    changes: Vec<(Scope, Option<Uuid>, LevelChange)>,
    pub(super) files: Vec<Uuid>,
    pub(super) changes_by_file: Changes,
    /// Jobs with different runs at `known_at`.
    pub(super) jobs: BTreeSet<Uuid>,
    /// The runs of these jobs as known at `known_at`.
    pub(super) runs: Vec<JobRun<Uuid, Uuid>>,
}

impl LateRecords {
    pub(super) async fn of(
        connection: &mut PgConnection,
        query: UsageQuery,
        known_at: Timestamp,
    ) -> Result<Self, ReadError> {
        let UsageQuery { organization, window, .. } = query;
        let (_, last) = window.read_range();
        let mut late = Self::default();
        let changes = storage_changes::recorded_after(connection, organization, known_at, last, MAX_CHANGES).await?;
        for change in changes.values().flatten() {
            late.changes.push((Scope::Storage, None, *change));
        }
        late.files = changes.keys().copied().collect();
        late.changes_by_file = changes;
        let known = runs::runs_known_at(connection, organization, known_at, last, MAX_CHANGES).await?;
        let stored = runs::runs_of_jobs(connection, &known.jobs).await?;
        let difference = runs::level_difference(known.runs.iter(), stored.values());
        late.changes.extend(difference.into_iter().map(|(_, scope, subject, change)| (scope, subject, change)));
        late.jobs = known.jobs.into_iter().collect();
        late.runs = known.runs.into_iter().map(|run| run.recorded.run).collect();
        Ok(late)
    }

    /// Subtracts the late records from the sums of these scopes.
    pub(super) fn subtract_from(&self, sums: &mut RollupSums, scopes: &[Scope], read_spans: &ReadSpans) {
        let of_scopes: Vec<_> = self.changes.iter().filter(|(scope, ..)| scopes.contains(scope)).copied().collect();
        sums.subtract(&of_scopes, read_spans.from, &read_spans.spans);
    }

    /// Lists runs that may be anomalous, as known at `known_at`, and all other runs of jobs with late records.
    pub(super) fn anomalous_runs(&self, rows: &UsageRows) -> Vec<JobRun<Uuid, Uuid>> {
        let unchanged = rows.anomalous_runs.iter().filter(|run| !self.jobs.contains(&run.job));
        unchanged.chain(&self.runs).cloned().collect()
    }
}
