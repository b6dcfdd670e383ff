//! How files' levels changed, by what is the least to read.
//!
//! The problem: an upload of ten thousand parts is ten thousand changes, and most files have two.
//!
//! The invariant: a file of few changes is told by all of them. One of more has sums of its own, the rows of `metering_file_sums`, which
//! with the changes of the hours that a question cuts are as exact. So a file costs days, and never more than a few changes.

use epoch::Timestamp;
use rating::{
    calendar::span::Span,
    metering::level::{LevelChange, LevelSums},
};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::{
    read_error::{ReadError, bounded},
    read_models::storage_changes::Changes,
    rollup::sums::{Pieces, Read, Scope},
    row::whole,
};

/// The statement.
pub const STATEMENT: &str = include_str!("file_sums.sql");

/// Its columns, by place.
const PART: usize = 0;
const FILE: usize = 1;
const PLACE: usize = 2;
const AT: usize = 3;
const DELTA: usize = 4;
const S0: usize = 5;
const S1: usize = 6;

/// Which files, and when.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Whose files.
    pub organization: Uuid,
    /// Which.
    pub files: &'a [Uuid],
    /// The last instant that matters.
    pub last: Timestamp,
    /// Changes that were recorded later aren't known; sums have them all the same.
    pub known_at: Option<Timestamp>,
    /// Before when, beside those in the spans.
    pub from: Timestamp,
    /// Spans that follow each other from there on.
    pub spans: &'a [Span],
    /// The most changes of files that have no sums.
    pub max_changes: i64,
}

/// Each file is in one of the two, if it changed.
#[derive(Debug, Default)]
pub struct Found {
    /// All changes up to and with the last instant, of files that have few.
    pub changes: Changes,
    /// The sums of the others: of [`Scope::Storage`], by file.
    pub sums: Read,
}

/// Reads what is wanted.
///
/// # Errors
/// [`ReadError`], also when there is more than may be read.
pub async fn read(connection: &mut PgConnection, wanted: &Wanted<'_>) -> Result<Found, ReadError> {
    let mut pieces = Pieces::within(wanted.spans);
    pieces.add(&[Scope::Storage], wanted.from, wanted.spans);
    let Pieces { edges, buckets, changes: cut, at_edges } = pieces;
    let rows = sqlx::query(STATEMENT)
        .bind(wanted.organization)
        .bind(wanted.files)
        .bind(wanted.last.as_millis())
        .bind(wanted.known_at.map(Timestamp::as_millis))
        .bind(wanted.max_changes.saturating_add(1))
        .bind(edges)
        .bind(buckets.widths)
        .bind(buckets.millis)
        .bind(buckets.shifts)
        .bind(buckets.firsts)
        .bind(buckets.ends)
        .bind(cut.firsts)
        .bind(cut.ends)
        .bind(cut.at_edges)
        .bind(at_edges.hours)
        .fetch_all(connection)
        .await?;
    let (mut found, mut count) = (Found::default(), 0);
    for row in &rows {
        let file: Uuid = row.try_get(FILE)?;
        if row.try_get::<i32, _>(PART)? == 1 {
            let at = Timestamp::from_millis(row.try_get(AT)?);
            let change = LevelChange { at, delta: row.try_get(DELTA)? };
            found.changes.entry(file).or_default().push(change);
            count += 1;
        } else {
            let sums = LevelSums::of(whole(row, S0)?, whole(row, S1)?);
            found.sums.add(Scope::Storage, file, row.try_get(PLACE)?, sums, wanted.spans.len());
        }
    }
    bounded(count, wanted.max_changes, "changes of files")?;
    Ok(found)
}
