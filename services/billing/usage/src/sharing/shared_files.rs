//! Files that jobs share, read in one statement.
//!
//! The shares of a file depend on its links and on its changes, and finding the relevant files takes both tables,
//! too. Unattributed storage also needs the rollup of all files. One statement finds the files of a period and
//! reads everything about them from indexes; a file without links costs one lookup. Its result is bounded:
//! exceeding a limit is an error, never a partial result.

use std::collections::BTreeMap;

use epoch::Timestamp;
use rating::{
    calendar::span::Span,
    metering::{compute::JobRun, level::LevelChange},
};
use sqlx::{FromRow, PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    page::Page,
    read_error::{ReadError, check_limit},
    read_models::{
        file_links::{LinkRecord, Links, links},
        storage_changes::Changes,
    },
    rollup::{ranges::RollupRanges, scope::Scope, span_sums::RollupSums},
    usage_row::{ChangeRow, RollupRow, RowKind, RunRow, column, limit_argument, subject},
};

/// Reads shared files and rollups.
pub const STATEMENT: &str =
    concat!(include_str!("../queries/shared_files.sql"), "union all\n", include_str!("../queries/rollup_sums.sql"));

/// Reads shared files, rollups, and a page of the jobs with runs or links.
pub const WITH_JOBS: &str = concat!(
    include_str!("../queries/shared_files.sql"),
    "union all\n",
    include_str!("../queries/linked_jobs.sql"),
    "union all\n",
    include_str!("../queries/runs.sql"),
    "union all\n",
    include_str!("../queries/rollup_sums.sql")
);

/// The input of the shared files statement.
#[derive(Debug, Clone, Copy)]
pub struct SharedFilesQuery<'a> {
    pub organization: Uuid,
    /// The first and the last relevant instant, both inclusive. Files stored between them are read.
    pub period: (Timestamp, Timestamp),
    /// Records after this instant are ignored, except in rollups.
    pub known_at: Option<Timestamp>,
    /// Files with late records, which are read even if they seem not to have been stored.
    pub late_files: &'a [Uuid],
    /// Restricts the files to those of these jobs.
    pub jobs: Option<&'a [Uuid]>,
    /// The maximum number of files.
    pub max_files: usize,
    /// The maximum number of changes of files, and of links.
    pub max_changes: i64,
    /// An organization with fewer links than this has all of them read at once; otherwise each file is looked up.
    pub many_links: i64,
    /// Whether to read the creations of the jobs.
    pub owners: bool,
    /// The page of jobs to list, if any.
    pub page: Option<Page>,
    /// The scopes to sum up for each span.
    pub scopes: &'a [Scope],
    /// The start of the spans; rollups also cover all time before.
    pub from: Timestamp,
    /// Contiguous spans, starting at `from`.
    pub spans: &'a [Span],
    /// The maximum number of sums: subjects times spans.
    pub max_sums: i64,
}

/// The user and the configuration of a job, from its creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobOwner {
    /// The creator of the job.
    pub user: Option<Uuid>,
    /// The configuration the job was created from.
    pub configuration: Option<Uuid>,
}

/// Owners by job.
pub type JobOwners = BTreeMap<Uuid, JobOwner>;

/// Reading this many unneeded links costs less than a thousand lookups of single files.
pub const MANY_LINKS: i64 = 5_000;

/// Files with links up to and including the last relevant instant.
#[derive(Debug, Default)]
pub struct SharedFiles {
    /// Links and unlinks by file.
    pub links: Links,
    /// Changes of the files in the period while they are linked. Earlier changes may be merged into one.
    pub changes: Changes,
    /// Owners of the jobs, if requested.
    pub owners: JobOwners,
    /// Rollups by scope and subject.
    pub sums: RollupSums,
    /// Runs by job, if a page is requested.
    pub runs: Vec<JobRun<Uuid, Uuid>>,
    /// Jobs with links, if a page is requested.
    pub linked_jobs: Vec<Uuid>,
}

/// A link, and the level of its file if the file changed at one instant only.
struct SharedLinkRow {
    link: LinkRecord,
    level: Option<LevelChange>,
}

impl FromRow<'_, PgRow> for SharedLinkRow {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let link = LinkRecord::from_row(row)?;
        let (bytes, since): (Option<i64>, i64) = (row.try_get(column::DELTA_BYTES)?, row.try_get(column::HELD_SINCE)?);
        let level = bytes.map(|delta| LevelChange { at: Timestamp::from_millis(since), delta });
        Ok(Self { link, level })
    }
}

impl FromRow<'_, PgRow> for JobOwner {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self { user: row.try_get(column::RELATED_ID)?, configuration: row.try_get(column::CONFIGURATION_ID)? })
    }
}

/// Executes the shared files statement.
///
/// # Errors
/// [`ReadError`], also when a limit is exceeded.
pub async fn read(connection: &mut PgConnection, query: &SharedFilesQuery<'_>) -> Result<SharedFiles, ReadError> {
    let (first, last) = query.period;
    let mut ranges = RollupRanges::within(query.spans);
    ranges.add(query.scopes, query.from, query.spans);
    let statement = if query.page.is_some() { WITH_JOBS } else { STATEMENT };
    let mut statement = ranges
        .bind(statement, query.organization)
        .bind(first.as_millis())
        .bind(last.as_millis())
        .bind(query.known_at.map(Timestamp::as_millis))
        .bind(query.late_files)
        .bind(query.jobs)
        .bind(query.max_changes.saturating_add(1))
        .bind(query.max_changes.saturating_add(1))
        .bind(query.many_links)
        .bind(query.owners);
    if let Some(page) = query.page {
        statement = statement.bind(page.after.unwrap_or_default()).bind(limit_argument(page.limit));
    }
    let rows = statement.fetch_all(connection).await?;
    let (mut files, mut all_links, mut changes) = (SharedFiles::default(), Vec::with_capacity(rows.len()), 0);
    for row in &rows {
        match RowKind::of(row)? {
            RowKind::Rollup => {
                let rollup = RollupRow::from_row(row)?;
                files.sums.add_row(&rollup, query.spans.len(), query.max_sums)?;
            }
            RowKind::Run => files.runs.push(RunRow::from_row(row)?.0),
            RowKind::Change => {
                let ChangeRow { file, change } = ChangeRow::from_row(row)?;
                files.changes.entry(file).or_default().push(change);
                changes += 1;
            }
            RowKind::SharedLink => {
                let SharedLinkRow { link, level } = SharedLinkRow::from_row(row)?;
                if let Some(level) = level {
                    files.changes.entry(link.file).or_insert_with(|| vec![level]);
                }
                all_links.push(link);
            }
            RowKind::JobCreation => {
                files.owners.insert(subject(row)?, JobOwner::from_row(row)?);
            }
            RowKind::LinkedJob => files.linked_jobs.push(subject(row)?),
            RowKind::AnomalousRun | RowKind::File | RowKind::Link | RowKind::NegativeFile | RowKind::HiddenFile => {}
        }
    }
    check_limit(all_links.len(), query.max_changes, "links of files")?;
    check_limit(changes, query.max_changes, "changes of files")?;
    files.runs.sort_unstable_by_key(|run| run.job);
    files.links = links(all_links);
    check_limit(files.links.len(), limit_argument(query.max_files), "shared files")?;
    Ok(files)
}
