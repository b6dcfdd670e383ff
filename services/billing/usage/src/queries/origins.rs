//! Origins: the events behind an amount of usage, to resolve disputes.
//!
//! Invariant: the origins of a file are all changes that sum to its level up to the end of the counted
//! period, so adding them up yields the same areas. The origins of a run are the events that started and
//! ended it. Rows that were stored before event ids were kept have no event id.

use std::collections::BTreeMap;

use epoch::Timestamp;
use rating::metering::{compute::JobRun, level::LevelChange};
use sqlx::Row as _;
use uuid::Uuid;

use crate::{
    page::Page,
    queries::{
        evaluation::{ListPages, RollupSelection},
        groups::GroupBy,
        read_spans::ReadSpans,
        snapshot::Snapshot,
        usage_query::{MAX_CHANGES, UsagePage, one_more},
    },
    read_error::{ReadError, check_limit},
};

/// A change of a file and its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    pub change: LevelChange,
    /// The event id, or `None` if it was not kept.
    pub event: Option<Uuid>,
    /// When the file service recorded the event.
    pub recorded_at: Timestamp,
}

/// A run and its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOrigin {
    pub run: JobRun<Uuid, Uuid>,
    pub started_by: EventOrigin,
    pub ended_by: EventOrigin,
}

/// The event of a moment, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventOrigin {
    pub event: Option<Uuid>,
    /// When the service recorded the event.
    pub recorded_at: Option<Timestamp>,
}

const OF_FILES: &str = "select file_id, at, delta_bytes, event_id, recorded_at from storage_changes \
     where organization_id = $1 and file_id = any($2) and at < $3 and ($4::bigint is null or recorded_at <= $4) \
     order by file_id, at, recorded_at, event_id limit $5";

const OF_RUNS: &str = "select job_id, kind = 1 as started, at, event_id, recorded_at from job_moments where job_id = any($1) \
     order by job_id, version";

impl Snapshot {
    /// Lists all changes of up to `limit` files after `after` that were stored in the period, by file and in
    /// order of time. The page has fewer files if they have too many changes for one query.
    ///
    /// # Errors
    /// [`ReadError`], also when a single file has too many changes.
    pub async fn origins_of_files(
        &mut self,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<UsagePage<(Uuid, Vec<Origin>)>, ReadError> {
        let counted = [self.counted()];
        let UsagePage { items, next } = self.groups(GroupBy::File, &counted, after, limit).await?;
        let files: Vec<Uuid> = items.into_iter().filter_map(|(file, _)| file).collect();
        let rows = sqlx::query(OF_FILES)
            .bind(self.query.organization)
            .bind(&files)
            .bind(self.counted().end().as_millis())
            .bind(self.query.known_at.map(Timestamp::as_millis))
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
        if check_limit(rows.len(), MAX_CHANGES, "changes of files").is_ok() {
            return Ok(UsagePage { items: origins.into_iter().collect(), next });
        }
        // The last file is incomplete, so the page ends before it.
        origins.pop_last();
        let next = origins.last_key_value().map(|(file, _)| *file);
        match next {
            Some(_) => Ok(UsagePage { items: origins.into_iter().collect(), next }),
            None => Err(ReadError::LimitExceeded { what: "changes of files", limit: MAX_CHANGES }),
        }
    }

    /// Lists the runs of up to `limit` jobs after `after` that count in the period, by job.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn origins_of_runs(
        &mut self,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<UsagePage<RunOrigin>, ReadError> {
        let page = Page { after, limit };
        let pages = ListPages { jobs: one_more(page), ..ListPages::default() };
        let result = self.read(RollupSelection::default(), &ReadSpans::of(self.query.window, &[]), pages).await?;
        let UsagePage { items: runs, next } = self.query.runs_of_page(&result.runs, &self.late, page);
        let mut jobs: Vec<_> = runs.iter().map(|run| run.job).collect();
        jobs.dedup();
        let rows = sqlx::query(OF_RUNS).bind(&jobs).fetch_all(&mut *self.connection).await?;
        let mut events: BTreeMap<(Uuid, bool, Timestamp), EventOrigin> = BTreeMap::new();
        for row in &rows {
            let (job, at) = (row.try_get("job_id")?, Timestamp::from_millis(row.try_get("at")?));
            let recorded_at = Some(Timestamp::from_millis(row.try_get("recorded_at")?));
            let event = EventOrigin { event: row.try_get("event_id")?, recorded_at };
            events.entry((job, row.try_get("started")?, at)).or_insert(event);
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
        Ok(UsagePage { items, next })
    }
}
