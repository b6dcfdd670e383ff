//! From what one statement read to what was asked.
//!
//! The invariant: what was not known yet is taken out of sums again, and files of which it is among the changes are computed from
//! those that were known.

use std::collections::{BTreeMap, BTreeSet};

use epoch::Timestamp;
use rating::{
    calendar::span::{Span, Window},
    metering::{compute::JobRun, level::LevelChange, storage::storage_usage},
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    page::Page,
    queries::{
        question::{Asked, MAX_CHANGES, MAX_PARTS, Part, Totals},
        usage_statement::{self, Area, Found, Wanted},
    },
    read_error::ReadError,
    read_models::{
        runs,
        storage_changes::{self, Changes},
    },
    rollup::sums::{Read, Scope, Sums},
};

/// Of the organization, in each span; and of users, in all of them together.
pub(super) const TOTALS: Sought<'static> =
    Sought { scopes: &[Scope::Storage, Scope::Running], whole: &[Scope::RunningByUser], hidden: true };

/// Which sums are wanted: for each span, and for all together; and whether it matters what the sum of all files hides.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sought<'a> {
    pub(super) scopes: &'a [Scope],
    pub(super) whole: &'a [Scope],
    pub(super) hidden: bool,
}

/// Which sums answer for spans. If something may still go on at `as_of`, what changes at that very instant is among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) from: Timestamp,
    pub(super) spans: Vec<Span>,
}

impl Cut {
    pub(super) fn of(window: Window, spans: &[Span]) -> Self {
        let (from, as_of) = (window.counted().start(), window.as_of);
        if !window.is_cut() {
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

    /// The area over all spans that were asked for, which end at `end`.
    pub(super) fn area(&self, sums: &Sums, end: Timestamp) -> i128 {
        if self.spans.is_empty() { 0 } else { sums.area(self.from, end) }
    }

    /// The areas over the spans that were asked for.
    pub(super) fn areas(&self, sums: &Sums, spans: &[Span]) -> Vec<i128> {
        let mut areas = self.spans.iter().zip(sums.areas(&self.spans));
        let area = |span: &Span| match span.is_empty() {
            true => 0,
            false => areas.find(|(of, _)| *of == span).map_or(0, |(_, area)| area),
        };
        spans.iter().map(area).collect()
    }
}

/// Which jobs and files are listed, and how many flags of each at most.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pages {
    pub(super) jobs: Page,
    pub(super) files: Page,
    pub(super) flags: usize,
}

/// What was not known yet.
#[derive(Debug, Default)]
pub(super) struct Late {
    changes: Vec<(Scope, Option<Uuid>, LevelChange)>,
    pub(super) files: Vec<Uuid>,
    /// By file.
    pub(super) of_files: Changes,
    /// Jobs whose runs were others, or none yet.
    jobs: BTreeSet<Uuid>,
    /// The runs of these jobs as they were known.
    runs: Vec<JobRun<Uuid, Uuid>>,
}

impl Late {
    pub(super) async fn of(
        connection: &mut PgConnection,
        asked: Asked,
        known_at: Timestamp,
    ) -> Result<Self, ReadError> {
        let Asked { organization, window, .. } = asked;
        let (_, last) = window.needed();
        let mut late = Self::default();
        let changes = storage_changes::recorded_after(connection, organization, known_at, last, MAX_CHANGES).await?;
        for change in changes.values().flatten() {
            late.changes.push((Scope::Storage, None, *change));
        }
        late.files = changes.keys().copied().collect();
        late.of_files = changes;
        let known = runs::known_at(connection, organization, known_at, last, MAX_CHANGES).await?;
        let kept = runs::of_jobs(connection, &known.jobs).await?;
        let difference = runs::difference(known.runs.iter(), kept.values());
        late.changes.extend(difference.into_iter().map(|(_, scope, subject, change)| (scope, subject, change)));
        late.jobs = known.jobs.into_iter().collect();
        late.runs = known.runs.into_iter().map(|run| run.recorded.run).collect();
        Ok(late)
    }

    /// Takes what wasn't known yet out of sums of these scopes.
    pub(super) fn forget(&self, sums: &mut Read, scopes: &[Scope], cut: &Cut) {
        let of_scopes: Vec<_> = self.changes.iter().filter(|(scope, ..)| scopes.contains(scope)).copied().collect();
        sums.forget(&of_scopes, cut.from, &cut.spans);
    }

    /// Runs that are odd, as far as they were known; and all others of jobs of which something wasn't known yet.
    pub(super) fn odd_runs(&self, found: &Found) -> Vec<JobRun<Uuid, Uuid>> {
        let as_kept = found.odd.iter().filter(|run| !self.jobs.contains(&run.job));
        as_kept.chain(&self.runs).cloned().collect()
    }
}

impl Asked {
    pub(super) async fn read(
        &self,
        connection: &mut PgConnection,
        late: &Late,
        sought: Sought<'_>,
        cut: &Cut,
        pages: Pages,
    ) -> Result<Found, ReadError> {
        let wanted = Wanted {
            organization: self.organization,
            window: self.window,
            known_at: self.known_at,
            scopes: sought.scopes,
            whole: sought.whole,
            from: cut.from,
            spans: &cut.spans,
            jobs: pages.jobs,
            files: pages.files,
            flags: pages.flags,
            unclear: &late.files,
            hidden: sought.hidden && self.window.is_cut(),
            max_sums: MAX_PARTS,
            max_changes: MAX_CHANGES,
        };
        let mut found = usage_statement::read(connection, &wanted).await?;
        late.forget(&mut found.sums, &[sought.scopes, sought.whole].concat(), cut);
        Ok(found)
    }

    pub(super) fn totals(&self, found: &Found, cut: &Cut, spans: &[Span]) -> Totals {
        let mut users = Vec::new();
        for (user, sums) in found.sums.of(Scope::RunningByUser) {
            let run_ms = cut.area(sums, self.window.counted().end());
            if run_ms != 0 {
                users.push((user, run_ms));
            }
        }
        let storage = found.sums.only(Scope::Storage, cut.spans.len());
        let running = found.sums.only(Scope::Running, cut.spans.len());
        let is_cut = self.window.is_cut();
        Totals {
            byte_ms: cut.areas(&storage, spans),
            run_ms: cut.areas(&running, spans),
            users,
            // Where none of the files that were ever below 0 holds anything, the others do together what one of them does.
            storage_provisional: is_cut && (found.hidden || storage.level() != 0),
            compute_provisional: is_cut && running.level() != 0,
        }
    }

    /// The runs of a page of jobs that the period's usage needs; one job more was read.
    pub(super) fn runs_of_page(
        &self,
        read: &[JobRun<Uuid, Uuid>],
        late: &Late,
        page: Page,
    ) -> Part<JobRun<Uuid, Uuid>> {
        let (counted, as_of) = (self.window.counted(), self.window.as_of);
        let is_listed = |run: &&JobRun<Uuid, Uuid>| {
            page.after.is_none_or(|after| run.job > after) && run.run.touches(counted, as_of)
        };
        let mut runs: Vec<_> = late.runs.iter().filter(is_listed).cloned().collect();
        runs.extend(read.iter().filter(|run| !late.jobs.contains(&run.job)).cloned());
        runs.sort_by_key(|run| run.job);
        // A page ends where the one that was read ends, also if nothing was known yet of some of its jobs.
        let jobs: BTreeSet<Uuid> = runs.iter().chain(read).map(|run| run.job).collect();
        let limit = page.limit;
        let next = (jobs.len() > limit).then(|| jobs.iter().nth(limit.saturating_sub(1)).copied()).flatten();
        if let Some(next) = next {
            runs.retain(|run| run.job <= next);
        }
        Part { items: runs, next }
    }

    /// The areas of up to `limit` files; one file more was read.
    pub(super) fn file_sums(&self, found: &Found, late: &Late, limit: usize) -> Part<(Uuid, i128)> {
        let next = found.files.get(limit.saturating_sub(1)).map(|area| area.file);
        let next = next.filter(|_| found.files.len() > limit);
        let mut files = Vec::with_capacity(found.files.len());
        for Area { file, byte_ms, stored } in found.files.iter().take(limit) {
            if !late.of_files.contains_key(file) {
                files.extend(stored.then_some((*file, *byte_ms)));
            } else if let Some(changes) = found.changes.get(file) {
                let one = BTreeMap::from([(*file, changes.clone())]);
                files.extend(storage_usage(&one, self.window, &[]).files);
            }
        }
        Part { items: files, next }
    }
}
