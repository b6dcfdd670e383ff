//! Evaluation of the rows of the usage statement.
//!
//! Late records are subtracted from rollups, and files with late records are computed from the changes that were
//! known.

use std::collections::{BTreeMap, BTreeSet};

use rating::{
    calendar::span::Span,
    metering::{compute::JobRun, storage::storage_usage},
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    page::Page,
    queries::{
        late_records::LateRecords,
        read_spans::ReadSpans,
        usage_query::{MAX_CELLS, MAX_CHANGES, UsageBySpan, UsagePage, UsageQuery},
        usage_statement::{self, FileArea, StatementInput, UsageRows},
    },
    read_error::ReadError,
    rollup::scope::Scope,
};

/// The rollups of [`UsageBySpan`].
pub(super) const USAGE_BY_SPAN: RollupSelection<'static> =
    RollupSelection { scopes: &[Scope::Storage, Scope::Running], whole: &[Scope::RunningByUser], hidden: true };

/// The scopes to sum up for each span and over all spans, and whether to find files that the total may hide.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RollupSelection<'a> {
    pub(super) scopes: &'a [Scope],
    pub(super) whole: &'a [Scope],
    pub(super) hidden: bool,
}

/// The pages of jobs and files to list, and the maximum number of anomalies of each.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ListPages {
    pub(super) jobs: Page,
    pub(super) files: Page,
    pub(super) anomalies: usize,
}

impl UsageQuery {
    pub(super) async fn read(
        &self,
        connection: &mut PgConnection,
        late: &LateRecords,
        selection: RollupSelection<'_>,
        read_spans: &ReadSpans,
        pages: ListPages,
    ) -> Result<UsageRows, ReadError> {
        let input = StatementInput {
            organization: self.organization,
            window: self.window,
            known_at: self.known_at,
            scopes: selection.scopes,
            whole: selection.whole,
            from: read_spans.from,
            spans: &read_spans.spans,
            jobs: pages.jobs,
            files: pages.files,
            anomalies: pages.anomalies,
            late_files: &late.files,
            hidden: selection.hidden && self.window.may_be_provisional(),
            max_sums: MAX_CELLS,
            max_changes: MAX_CHANGES,
        };
        let mut rows = usage_statement::read(connection, &input).await?;
        late.subtract_from(&mut rows.sums, &[selection.scopes, selection.whole].concat(), read_spans);
        Ok(rows)
    }

    pub(super) fn usage_by_span(&self, rows: &UsageRows, read_spans: &ReadSpans, spans: &[Span]) -> UsageBySpan {
        let mut users = Vec::new();
        for (user, sums) in rows.sums.of(Scope::RunningByUser) {
            let run_ms = read_spans.area(sums, self.window.counted().end());
            if run_ms != 0 {
                users.push((user, run_ms));
            }
        }
        let storage = rows.sums.of_organization(Scope::Storage, read_spans.spans.len());
        let running = rows.sums.of_organization(Scope::Running, read_spans.spans.len());
        let may_be_provisional = self.window.may_be_provisional();
        UsageBySpan {
            byte_ms: read_spans.areas(&storage, spans),
            run_ms: read_spans.areas(&running, spans),
            users,
            // Without a hidden file, a stored file shows in the total level, since no other file cancels it.
            storage_provisional: may_be_provisional && (rows.hidden || storage.level() != 0),
            compute_provisional: may_be_provisional && running.level() != 0,
        }
    }

    /// Returns the runs of a page of jobs that count in the period; `read` has one more job than the page.
    pub(super) fn runs_of_page(
        &self,
        read: &[JobRun<Uuid, Uuid>],
        late: &LateRecords,
        page: Page,
    ) -> UsagePage<JobRun<Uuid, Uuid>> {
        let (counted, as_of) = (self.window.counted(), self.window.as_of);
        let is_listed = |run: &&JobRun<Uuid, Uuid>| {
            page.after.is_none_or(|after| run.job > after) && run.run.overlaps(counted, as_of)
        };
        let mut runs: Vec<_> = late.runs.iter().filter(is_listed).cloned().collect();
        runs.extend(read.iter().filter(|run| !late.jobs.contains(&run.job)).cloned());
        runs.sort_by_key(|run| run.job);
        // The page ends where the rows end, even if some of their jobs had no runs at `known_at`.
        let jobs: BTreeSet<Uuid> = runs.iter().chain(read).map(|run| run.job).collect();
        let limit = page.limit;
        let next = (jobs.len() > limit).then(|| jobs.iter().nth(limit.saturating_sub(1)).copied()).flatten();
        if let Some(next) = next {
            runs.retain(|run| run.job <= next);
        }
        UsagePage { items: runs, next }
    }

    /// Returns the areas of up to `limit` files; `rows` has one more file.
    pub(super) fn file_areas(&self, rows: &UsageRows, late: &LateRecords, limit: usize) -> UsagePage<(Uuid, i128)> {
        let next = rows.files.get(limit.saturating_sub(1)).map(|area| area.file);
        let next = next.filter(|_| rows.files.len() > limit);
        let mut files = Vec::with_capacity(rows.files.len());
        for FileArea { file, byte_ms, stored } in rows.files.iter().take(limit) {
            if !late.changes_by_file.contains_key(file) {
                files.extend(stored.then_some((*file, *byte_ms)));
            } else if let Some(changes) = rows.changes.get(file) {
                let one = BTreeMap::from([(*file, changes.clone())]);
                files.extend(storage_usage(&one, self.window, &[]).files);
            }
        }
        UsagePage { items: files, next }
    }
}
