//! The usage statement: everything a usage report needs, read in one statement.
//!
//! A report combines rollups, runs, files, links and single changes. Separate statements would cost a round trip
//! each, and a transaction to keep them consistent. One statement reads all of it from indexes and skips the
//! lists that are not requested. Its result is bounded: exceeding a limit is an error, never a partial result.
//! Only anomalies are truncated to the requested number, since any number of them must not prevent charging. The
//! database evaluates files that were negative at some time, so their changes are not transferred.

use epoch::Timestamp;
use rating::{
    calendar::span::{Span, Window},
    metering::compute::JobRun,
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
    rollup::{
        ranges::{self, RollupRanges},
        scope::Scope,
        span_sums::RollupSums,
    },
    usage_row::{ChangeRow, RollupRow, RowKind, RunRow, column, integer, limit_argument, subject},
};

/// Reads lists, runs and rollups. If only rollups are requested, [`ranges::STATEMENT`] is sent alone.
pub const STATEMENT: &str = concat!(
    include_str!("usage_lists.sql"),
    "union all\n",
    include_str!("runs.sql"),
    "union all\n",
    include_str!("rollup_sums.sql")
);

/// The input of the usage statement.
#[derive(Debug, Clone)]
pub struct StatementInput<'a> {
    pub organization: Uuid,
    /// The period and the instant of evaluation.
    pub window: Window,
    /// Records after this instant are ignored, except in rollups.
    pub known_at: Option<Timestamp>,
    /// The scopes to sum up for each span.
    pub scopes: &'a [Scope],
    /// The scopes to sum up over all spans together. The span they are returned in has no meaning.
    pub whole: &'a [Scope],
    /// The start of the spans; rollups also cover all time before.
    pub from: Timestamp,
    /// Contiguous spans, starting at `from`.
    pub spans: &'a [Span],
    /// The page of jobs to list runs of.
    pub jobs: Page,
    /// The page of files to list, with their links, if they may have been stored in the counted period.
    pub files: Page,
    /// The maximum number of anomalous files, and of runs that may be anomalous; the first by id.
    pub anomalies: usize,
    /// Files with late records. They are listed with their changes, even if their sums indicate that they were not stored.
    pub late_files: &'a [Uuid],
    /// Whether to find stored files that the total of all files may hide.
    pub hidden: bool,
    /// The maximum number of sums: subjects times spans.
    pub max_sums: i64,
    /// The maximum number of changes of files, and of links.
    pub max_changes: i64,
}

/// The area of a file in the counted period, by its sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileArea {
    pub file: Uuid,
    /// Byte-milliseconds.
    pub byte_ms: i128,
    /// Whether the file was stored. A negative level may cancel a positive one, so a stored file may have area 0.
    pub stored: bool,
}

impl FromRow<'_, PgRow> for FileArea {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let (byte_ms, stored) = (integer(row, column::BYTE_MS)?, row.try_get(column::FLAG)?);
        Ok(Self { file: subject(row)?, byte_ms, stored })
    }
}

/// The result of the usage statement.
#[derive(Debug, Default)]
pub struct UsageRows {
    /// Rollups by scope and subject.
    pub sums: RollupSums,
    /// Runs by job.
    pub runs: Vec<JobRun<Uuid, Uuid>>,
    /// Runs that may be anomalous, by job.
    pub anomalous_runs: Vec<JobRun<Uuid, Uuid>>,
    /// Files and their areas, by id.
    pub files: Vec<FileArea>,
    /// Links of these files.
    pub links: Links,
    /// Changes of these files in the period: of files with links since the first link, and of files with late
    /// records. Earlier changes may be merged into one.
    pub changes: Changes,
    /// Files with a negative level in the counted period, by id.
    pub negative_files: Vec<Uuid>,
    /// Whether a file is stored at `as_of` that the total of all files may hide, if requested: a file that was
    /// negative at some time, or with late records.
    pub hidden: bool,
}

/// Executes the usage statement.
///
/// # Errors
/// [`ReadError`], also when a limit is exceeded.
pub async fn read(connection: &mut PgConnection, input: &StatementInput<'_>) -> Result<UsageRows, ReadError> {
    let (first, last) = input.window.read_range();
    let mut ranges = RollupRanges::within(input.spans);
    ranges.add(input.scopes, input.from, input.spans);
    let end = input.spans.iter().map(|span| span.end()).max().unwrap_or(input.from);
    ranges.add_whole(input.whole, input.from, end);
    // An empty counted period lists no files, although the period itself may contain stored files.
    let files = if input.window.counted().is_empty() { 0 } else { input.files.limit };
    let has_lists = input.jobs.limit > 0 || files > 0 || input.anomalies > 0 || input.hidden;
    let mut query = ranges.bind(if has_lists { STATEMENT } else { ranges::STATEMENT }, input.organization);
    if has_lists {
        query = query
            .bind(first.as_millis())
            .bind(last.as_millis())
            .bind(input.known_at.map(Timestamp::as_millis))
            .bind(input.files.after.unwrap_or_default())
            .bind(limit_argument(files))
            .bind(input.late_files)
            .bind(limit_argument(input.anomalies))
            .bind(input.max_changes.saturating_add(1))
            .bind(input.hidden)
            .bind(input.jobs.after.unwrap_or_default())
            .bind(limit_argument(input.jobs.limit));
    }
    let mut result = UsageRows::default();
    let (mut changes, mut all_links) = (0, Vec::new());
    for row in &query.fetch_all(connection).await? {
        match RowKind::of(row)? {
            RowKind::Rollup => {
                let rollup = RollupRow::from_row(row)?;
                result.sums.add_row(&rollup, input.spans.len(), input.max_sums)?;
            }
            RowKind::Run => result.runs.push(RunRow::from_row(row)?.0),
            RowKind::AnomalousRun => result.anomalous_runs.push(RunRow::from_row(row)?.0),
            RowKind::File => result.files.push(FileArea::from_row(row)?),
            RowKind::Link => all_links.push(LinkRecord::from_row(row)?),
            RowKind::Change => {
                let ChangeRow { file, change } = ChangeRow::from_row(row)?;
                result.changes.entry(file).or_default().push(change);
                changes += 1;
            }
            RowKind::NegativeFile => result.negative_files.push(subject(row)?),
            RowKind::HiddenFile => result.hidden = true,
            RowKind::SharedLink | RowKind::JobCreation | RowKind::LinkedJob => {}
        }
    }
    check_limit(changes, input.max_changes, "changes of files")?;
    check_limit(all_links.len(), input.max_changes, "links of files")?;
    result.runs.sort_unstable_by_key(|run| run.job);
    result.anomalous_runs.sort_unstable_by_key(|run| run.job);
    result.files.sort_unstable();
    result.negative_files.sort_unstable();
    result.links = links(all_links);
    Ok(result)
}
