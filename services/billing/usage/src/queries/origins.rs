//! From usage to the events that made it.
//!
//! The problem: an amount that somebody doubts must be traceable to what was said by whom and when.
//!
//! The invariant: the origins of a file are all the changes of which its level is the sum, up to the end of what counts, so whoever
//! adds them up gets the same areas; those of a run are the events that started and ended it. What was taken in before ids
//! were kept has none.

use std::collections::BTreeMap;

use epoch::Timestamp;
use rating::metering::{compute::JobRun, level::LevelChange};
use sqlx::Row as _;
use uuid::Uuid;

use crate::{
    page::Page,
    queries::{
        groups::GroupBy,
        question::{MAX_CHANGES, Part, one_more},
        reading::{Cut, Pages, Sought},
        snapshot::Snapshot,
    },
    read_error::{ReadError, bounded},
};

/// A change of a file, and the event that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// What changed, and when.
    pub change: LevelChange,
    /// The event.
    pub event: Option<Uuid>,
    /// When the file service took it.
    pub recorded_at: Timestamp,
}

/// A run, and the events that say so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOrigin {
    /// From when to when, and whose.
    pub run: JobRun<Uuid, Uuid>,
    /// The event that started it.
    pub started_by: Told,
    /// The event that ended it.
    pub ended_by: Told,
}

/// The event that says something, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Told {
    /// The event.
    pub event: Option<Uuid>,
    /// When its service took it.
    pub recorded_at: Option<Timestamp>,
}

const OF_FILES: &str = "select file_id, at, delta_bytes, event_id, recorded_at from storage_changes \
     where organization_id = $1 and file_id = any($2) and at < $3 and ($4::bigint is null or recorded_at <= $4) \
     order by file_id, at, recorded_at, event_id limit $5";

const OF_RUNS: &str = "select job_id, kind = 1 as started, at, event_id, recorded_at from job_moments where job_id = any($1) \
     order by job_id, version";

impl Snapshot {
    /// All changes of up to `limit` files after `after` that were stored in the period, by file and in order of time; of fewer files if they have
    /// more changes than are read at once.
    ///
    /// # Errors
    /// [`ReadError`], also when a file alone has too many.
    pub async fn origins_of_files(
        &mut self,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Part<(Uuid, Vec<Origin>)>, ReadError> {
        let counted = [self.counted()];
        let Part { items, next } = self.groups(GroupBy::File, &counted, after, limit).await?;
        let files: Vec<Uuid> = items.into_iter().filter_map(|(file, _)| file).collect();
        let rows = sqlx::query(OF_FILES)
            .bind(self.asked.organization)
            .bind(&files)
            .bind(self.counted().end().as_millis())
            .bind(self.asked.known_at.map(Timestamp::as_millis))
            .bind(MAX_CHANGES.saturating_add(1))
            .fetch_all(&mut *self.connection)
            .await?;
        let mut origins: BTreeMap<Uuid, Vec<Origin>> = BTreeMap::new();
        for row in &rows {
            let at = Timestamp::from_millis(row.try_get("at")?);
            origins.entry(row.try_get("file_id")?).or_default().push(Origin {
                change: LevelChange { at, delta: row.try_get("delta_bytes")? },
                event: row.try_get("event_id")?,
                recorded_at: Timestamp::from_millis(row.try_get("recorded_at")?),
            });
        }
        if bounded(rows.len(), MAX_CHANGES, "changes of files").is_ok() {
            return Ok(Part { items: origins.into_iter().collect(), next });
        }
        // Of the last file that was read not all was; the page ends before it.
        origins.pop_last();
        let next = origins.last_key_value().map(|(file, _)| *file);
        match next {
            Some(_) => Ok(Part { items: origins.into_iter().collect(), next }),
            None => Err(ReadError::TooMuch { what: "changes of files", limit: MAX_CHANGES }),
        }
    }

    /// The runs of up to `limit` jobs after `after` that the period's usage needs, by job.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn origins_of_runs(&mut self, after: Option<Uuid>, limit: usize) -> Result<Part<RunOrigin>, ReadError> {
        let page = Page { after, limit };
        let pages = Pages { jobs: one_more(page), ..Pages::default() };
        let found = self.read(Sought::default(), &Cut::of(self.asked.window, &[]), pages).await?;
        let Part { items: runs, next } = self.asked.runs_of_page(&found.runs, &self.late, page);
        let mut jobs: Vec<_> = runs.iter().map(|run| run.job).collect();
        jobs.dedup();
        let rows = sqlx::query(OF_RUNS).bind(&jobs).fetch_all(&mut *self.connection).await?;
        let mut events: BTreeMap<(Uuid, bool, Timestamp), Told> = BTreeMap::new();
        for row in &rows {
            let (job, at) = (row.try_get("job_id")?, Timestamp::from_millis(row.try_get("at")?));
            let recorded_at = Some(Timestamp::from_millis(row.try_get("recorded_at")?));
            let told = Told { event: row.try_get("event_id")?, recorded_at };
            events.entry((job, row.try_get("started")?, at)).or_insert(told);
        }
        let event = |job, started, at: Option<Timestamp>| {
            at.and_then(|at| events.get(&(job, started, at)).copied()).unwrap_or_default()
        };
        let mut items = Vec::with_capacity(runs.len());
        for run in runs {
            let started_by = event(run.job, true, run.run.started_at);
            let ended_by = event(run.job, false, run.run.ended_at);
            items.push(RunOrigin { run, started_by, ended_by });
        }
        Ok(Part { items, next })
    }
}
