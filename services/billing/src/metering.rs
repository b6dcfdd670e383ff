//! Answers about usage, from the read models.
//!
//! The problem: an answer is put together from several tables while events go on arriving, late ones too; and what was known at an
//! earlier time must still be told later.
//!
//! The invariant: everything in an answer is read from one snapshot of the database. Totals come from sums, so they cost days and not
//! events. For an earlier `known_at`, what was recorded since is taken out of them again, which costs what was recorded since.
//! Files that ever held less than nothing, and files of which something was not known yet, are computed from all their changes.

pub mod groups;

use std::collections::BTreeMap;

use epoch::Timestamp;
use sqlx::{PgPool, Postgres, Transaction};
use uuid::Uuid;

use crate::{
    domain::{
        Flagged,
        compute::{JobRun, JobUsage, compute_usage},
        metering::{LevelChange, level_at},
        sharing::{Change, FileChange, Rule, Shares, shares},
        span::{Span, Window},
        storage::{FileUsage, storage_usage},
    },
    projections::{
        ReadError, file_links, files,
        runs::{self, KeptRun},
        storage_changes::{self, Changes},
        sums::{self, Read, Scope},
    },
};

/// The most changes of single files, links and runs that one answer reads.
pub const MAX_CHANGES: i64 = 200_000;
/// The most files and runs that are odd which one answer reads.
pub const MAX_ODD: i64 = 10_000;

/// Whose usage, of when, and as far as it was known when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The organization.
    pub organization: Uuid,
    /// The period, and as of when.
    pub window: Window,
    /// What was recorded later is not known yet; everything is known if it isn't said.
    pub known_at: Option<Timestamp>,
}

/// Usage in spans that follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Stored byte-milliseconds, by span.
    pub byte_ms: Vec<i128>,
    /// Run milliseconds, by span.
    pub run_ms: Vec<i128>,
    /// Run milliseconds of all spans together by user, where there are any; nobody comes first.
    pub users: Vec<(Option<Uuid>, i128)>,
    /// Whether something is still stored that counts only up to `as_of`.
    pub storage_provisional: bool,
    /// Whether something still runs that counts only up to `as_of`.
    pub compute_provisional: bool,
}

/// A part of a list, and after which id it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<T> {
    /// By id.
    pub items: Vec<T>,
    /// After which id there are more.
    pub next: Option<Uuid>,
}

/// The read models as they were at one moment, for one question.
pub struct Snapshot {
    tx: Transaction<'static, Postgres>,
    asked: Asked,
    /// Changes that were not known yet.
    late: Vec<(Scope, Option<Uuid>, LevelChange)>,
    late_files: Vec<Uuid>,
    late_runs: Vec<KeptRun>,
    /// All changes of files whose sums don't say enough, as far as they were known.
    exact: Changes,
}

impl Snapshot {
    /// Looks at the read models as they are now.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn of(pool: &PgPool, asked: Asked) -> Result<Self, ReadError> {
        let mut tx = epoch_postgres::begin(pool, "begin isolation level repeatable read read only").await?;
        let Asked { organization, window, known_at } = asked;
        let (_, last) = window.needed();
        let (mut late, mut late_files, mut late_runs) = (Vec::new(), Vec::new(), Vec::new());
        if let Some(known_at) = known_at {
            let changes = storage_changes::recorded_after(&mut tx, organization, known_at, last, MAX_CHANGES).await?;
            for (file, changes) in changes {
                late_files.push(file);
                late.extend(changes.into_iter().map(|change| (Scope::Storage, None, change)));
            }
            late_runs = runs::recorded_after(&mut tx, organization, known_at, last, MAX_CHANGES).await?;
            for run in &late_runs {
                let known = KeptRun::level_changes(run.known_at(known_at)).len();
                for change in KeptRun::level_changes(run.run.run).into_iter().skip(known) {
                    late.extend(run.subjects().map(|(scope, subject)| (scope, subject, change)));
                }
            }
        }
        let mut unclear = files::negative(&mut tx, organization, last, MAX_ODD).await?;
        unclear.extend_from_slice(&late_files);
        let exact = match unclear.is_empty() {
            true => Changes::new(),
            false => storage_changes::of_files(&mut tx, organization, &unclear, last, known_at, MAX_CHANGES).await?,
        };
        Ok(Self { tx, asked, late, late_files, late_runs, exact })
    }

    /// What of the period counts.
    #[must_use]
    pub fn counted(&self) -> Span {
        self.asked.window.counted()
    }

    async fn sums(&mut self, scopes: &[Scope], from: Timestamp, spans: &[Span]) -> Result<Read, ReadError> {
        let mut read = sums::read(&mut self.tx, self.asked.organization, scopes, from, spans).await?;
        let of_scopes: Vec<_> = self.late.iter().filter(|(scope, ..)| scopes.contains(scope)).copied().collect();
        read.forget(&of_scopes, from, spans);
        Ok(read)
    }

    /// Usage in `spans`, which partition what of the period counts.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn totals(&mut self, spans: &[Span]) -> Result<Totals, ReadError> {
        let scopes = [Scope::Storage, Scope::Running, Scope::RunningByUser];
        let read = self.sums(&scopes, self.counted().start(), spans).await?;
        let mut users = Vec::new();
        for (user, sums) in read.of(Scope::RunningByUser) {
            let run_ms = sums.areas(spans).iter().sum();
            if run_ms != 0 {
                users.push((user, run_ms));
            }
        }
        let (storage_provisional, compute_provisional) = self.provisional().await?;
        Ok(Totals {
            byte_ms: read.only(Scope::Storage, spans.len()).areas(spans),
            run_ms: read.only(Scope::Running, spans.len()).areas(spans),
            users,
            storage_provisional,
            compute_provisional,
        })
    }

    async fn provisional(&mut self) -> Result<(bool, bool), ReadError> {
        let window = self.asked.window;
        if !window.is_cut() {
            return Ok((false, false));
        }
        let after = Timestamp::from_millis(window.as_of.as_millis().saturating_add(1));
        let read = self.sums(&[Scope::Storage, Scope::Running], after, &[]).await?;
        // Among the other files none is below 0, so that they hold something together where one of them does.
        let mut stored_by_others = read.only(Scope::Storage, 0).level_before();
        let mut stored = false;
        for changes in self.exact.values() {
            let level = level_at(changes, window.as_of);
            stored |= level != 0;
            stored_by_others -= level;
        }
        Ok((stored || stored_by_others != 0, read.only(Scope::Running, 0).level_before() != 0))
    }

    /// What is odd about files, and about jobs.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn flags(&mut self) -> Result<(Vec<Flagged<Uuid>>, Vec<Flagged<Uuid>>), ReadError> {
        let window = self.asked.window;
        let of_files = storage_usage(&self.exact, window, &[]).flags;
        let mut odd = runs::odd(&mut self.tx, self.asked.organization, window, MAX_ODD).await?;
        odd.extend_from_slice(&self.late_runs);
        let runs: Vec<_> = odd.iter().map(|run| self.as_known(run)).collect();
        Ok((of_files, compute_usage(&runs, window, &[]).flags))
    }

    fn as_known(&self, run: &KeptRun) -> JobRun<Uuid, Uuid> {
        match self.asked.known_at {
            Some(known_at) => JobRun { run: run.known_at(known_at), ..run.run.clone() },
            None => run.run.clone(),
        }
    }

    /// The runs of up to `limit` jobs after `after` that the period's usage needs.
    async fn runs(&mut self, after: Option<Uuid>, limit: usize) -> Result<Part<JobRun<Uuid, Uuid>>, ReadError> {
        let Asked { organization, window, known_at } = self.asked;
        let kept = runs::page(&mut self.tx, organization, window, known_at, after, one_more(limit)).await?;
        let mut runs: Vec<_> = kept.iter().map(|run| self.as_known(run)).collect();
        let jobs: Vec<Uuid> =
            kept.chunk_by(|left, right| left.run.job == right.run.job).map(|of| of[0].run.job).collect();
        let next = (jobs.len() > limit).then(|| jobs.get(limit.saturating_sub(1)).copied()).flatten();
        if let Some(next) = next {
            runs.retain(|run| run.job <= next);
        }
        Ok(Part { items: runs, next })
    }

    /// The jobs that ran in the period, from `after` on; up to `limit`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn jobs(&mut self, after: Option<Uuid>, limit: usize) -> Result<Part<JobUsage<Uuid, Uuid>>, ReadError> {
        let Part { items, next } = self.runs(after, limit).await?;
        Ok(Part { items: compute_usage(&items, self.asked.window, &[]).jobs, next })
    }

    /// The files that were stored in the period, from `after` on, and how jobs share each; up to `limit`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn files(&mut self, after: Option<Uuid>, limit: usize) -> Result<Part<FileUsage<Uuid, Uuid>>, ReadError> {
        let counted = self.counted();
        let Part { items, next } = self.file_sums(after, limit).await?;
        let ids: Vec<_> = items.iter().map(|(file, _)| *file).collect();
        let shared = self.shares(&ids, &[counted]).await?;
        let mut files = Vec::with_capacity(items.len());
        for (file, byte_ms) in items {
            let (unattributed_byte_ms, jobs) = match shared.get(&file).and_then(|spans| spans.first()) {
                Some(shares) => (shares.unattributed_byte_ms, shares.jobs.clone()),
                None => (byte_ms, Vec::new()),
            };
            files.push(FileUsage { file, byte_ms, unattributed_byte_ms, jobs });
        }
        Ok(Part { items: files, next })
    }

    async fn file_sums(&mut self, after: Option<Uuid>, limit: usize) -> Result<Part<(Uuid, i128)>, ReadError> {
        let counted = self.counted();
        if counted.is_empty() {
            return Ok(Part { items: Vec::new(), next: None });
        }
        let organization = self.asked.organization;
        let mut page =
            files::page(&mut self.tx, organization, counted, after, one_more(limit), &self.late_files).await?;
        let next = (page.len() > limit).then(|| page.get(limit.saturating_sub(1)).map(|sums| sums.file)).flatten();
        page.truncate(limit);
        let mut files = Vec::with_capacity(page.len());
        for sums in page {
            if let Some(changes) = self.exact.get(&sums.file) {
                let one = BTreeMap::from([(sums.file, changes.clone())]);
                files.extend(storage_usage(&one, self.asked.window, &[]).files);
            } else if sums.byte_ms != 0 && !self.late_files.contains(&sums.file) {
                files.push((sums.file, sums.byte_ms));
            }
        }
        Ok(Part { items: files, next })
    }

    /// How jobs share files in each of `spans`; only of files that were ever linked.
    async fn shares(&mut self, files: &[Uuid], spans: &[Span]) -> Result<BTreeMap<Uuid, Vec<Shares<Uuid>>>, ReadError> {
        let Asked { organization, window, known_at } = self.asked;
        let (_, last) = window.needed();
        let links = file_links::of_files(&mut self.tx, organization, files, last, known_at, MAX_CHANGES).await?;
        if links.is_empty() {
            return Ok(BTreeMap::new());
        }
        let linked: Vec<Uuid> = links.keys().copied().collect();
        let mut levels =
            storage_changes::of_files(&mut self.tx, organization, &linked, last, known_at, MAX_CHANGES).await?;
        let mut shared = BTreeMap::new();
        for (file, mut changes) in links {
            for LevelChange { at, delta } in levels.remove(&file).unwrap_or_default() {
                changes.push(FileChange { at, change: Change::Level(delta) });
            }
            // Those of one instant stay in the order of their events.
            changes.sort_by_key(|change| change.at);
            shared.insert(file, shares(&changes, spans, Rule::Split, |job| *job));
        }
        Ok(shared)
    }
}

fn one_more(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)
}
