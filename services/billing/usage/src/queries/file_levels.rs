//! The levels of files, read from the cheaper of two sources.
//!
//! Most files have two changes, but an upload of ten thousand parts has ten thousand. A file with few changes is
//! read by all of them. A file with many has a rollup of its own, in `metering_file_sums`, which is exact together
//! with the changes of partial hours. So a file costs as many rows as there are days, or few changes.

use epoch::Timestamp;
use rating::{
    calendar::span::Span,
    metering::level::{LevelChange, LevelSums},
};
use sqlx::{FromRow, PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    read_error::{ReadError, check_limit},
    read_models::storage_changes::Changes,
    rollup::{ranges::RollupRanges, scope::Scope, span_sums::RollupSums},
    usage_row::integer,
};

/// Reads changes and rollups of files.
pub const STATEMENT: &str = include_str!("file_levels.sql");

/// The files and spans to read.
#[derive(Debug, Clone, Copy)]
pub struct FileLevelQuery<'a> {
    pub organization: Uuid,
    /// The files to read.
    pub files: &'a [Uuid],
    /// The last relevant instant.
    pub last: Timestamp,
    /// Changes recorded later are ignored; rollups include them.
    pub known_at: Option<Timestamp>,
    /// The start of the spans; rollups also cover all time before.
    pub from: Timestamp,
    /// Contiguous spans, starting at `from`.
    pub spans: &'a [Span],
    /// The maximum number of changes of files without a rollup.
    pub max_changes: i64,
}

/// The levels of files. A file with changes is in exactly one of the two fields.
#[derive(Debug, Default)]
pub struct FileLevels {
    /// All changes up to and including the last instant, of files without a rollup.
    pub changes: Changes,
    /// The rollups of the other files, in [`Scope::Storage`], by file.
    pub sums: RollupSums,
}

/// A row of the statement: `at` and `delta_bytes` of a change, or `span_index`, `s0` and `s1` of a rollup.
struct FileLevelRow {
    file: Uuid,
    level: FileLevel,
}

enum FileLevel {
    Change(LevelChange),
    Rollup { span_index: i32, sums: LevelSums },
}

impl FromRow<'_, PgRow> for FileLevelRow {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let level = match row.try_get::<Option<i64>, _>("at")? {
            Some(at) => {
                let at = Timestamp::from_millis(at);
                FileLevel::Change(LevelChange { at, delta: row.try_get("delta_bytes")? })
            }
            None => {
                let sums = LevelSums::new(integer(row, "s0")?, integer(row, "s1")?);
                FileLevel::Rollup { span_index: row.try_get("span_index")?, sums }
            }
        };
        Ok(Self { file: row.try_get("file_id")?, level })
    }
}

/// Reads the levels of files.
///
/// # Errors
/// [`ReadError`], also when a limit is exceeded.
pub async fn read(connection: &mut PgConnection, query: &FileLevelQuery<'_>) -> Result<FileLevels, ReadError> {
    let mut ranges = RollupRanges::within(query.spans);
    ranges.add(&[Scope::Storage], query.from, query.spans);
    let RollupRanges { edges, buckets, changes: partial_hours, edge_hours } = ranges;
    let rows = sqlx::query(STATEMENT)
        .bind(query.organization)
        .bind(query.files)
        .bind(query.last.as_millis())
        .bind(query.known_at.map(Timestamp::as_millis))
        .bind(query.max_changes.saturating_add(1))
        .bind(edges)
        .bind(buckets.widths)
        .bind(buckets.millis)
        .bind(buckets.shifts)
        .bind(buckets.firsts)
        .bind(buckets.ends)
        .bind(partial_hours.firsts)
        .bind(partial_hours.ends)
        .bind(partial_hours.at_edges)
        .bind(edge_hours.hours)
        .fetch_all(connection)
        .await?;
    let (mut levels, mut changes) = (FileLevels::default(), 0);
    for row in &rows {
        let FileLevelRow { file, level } = FileLevelRow::from_row(row)?;
        match level {
            FileLevel::Change(change) => {
                levels.changes.entry(file).or_default().push(change);
                changes += 1;
            }
            FileLevel::Rollup { span_index, sums } => {
                levels.sums.add(Scope::Storage, file, span_index, sums, query.spans.len());
            }
        }
    }
    check_limit(changes, query.max_changes, "changes of files")?;
    Ok(levels)
}
