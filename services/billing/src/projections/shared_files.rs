//! The files that jobs share, read in one statement.
//!
//! The problem: how much of a file is whose takes its links and its changes, and which files matter takes both tables again.
//!
//! The invariant: one statement finds the files of a period and reads what is needed of them, from indexes; files that were
//! never linked cost one look. What is read is bounded; more than the bound is an error and never a part of the truth.

use epoch::Timestamp;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::{
    ReadError, bounded,
    file_links::{Link, Links, links},
    storage_changes::Changes,
};
use crate::domain::metering::LevelChange;

/// The statement.
pub const STATEMENT: &str = include_str!("sql/shared_files.sql");

/// Which files.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Whose files.
    pub organization: Uuid,
    /// That may have been stored from the first to the last of these instants.
    pub period: (Timestamp, Timestamp),
    /// What was recorded later isn't known.
    pub known_at: Option<Timestamp>,
    /// Files that are looked at even if they seem not to have been stored.
    pub unclear: &'a [Uuid],
    /// Files of these jobs; of all jobs if not said.
    pub jobs: Option<&'a [Uuid]>,
    /// The most files.
    pub max_files: usize,
    /// The most changes of files, and the most links.
    pub max_changes: i64,
}

/// Files that jobs were ever linked to, up to and with the last instant that was asked for.
#[derive(Debug, Default)]
pub struct Found {
    /// From when to when jobs used them.
    pub links: Links,
    /// How much they held; changes of one instant may be put together.
    pub changes: Changes,
}

/// Reads what is wanted.
///
/// # Errors
/// [`ReadError`], also when there is more than may be read.
pub async fn read(connection: &mut PgConnection, wanted: &Wanted<'_>) -> Result<Found, ReadError> {
    let (first, last) = wanted.period;
    let rows = sqlx::query(STATEMENT)
        .bind(wanted.organization)
        .bind(first.as_millis())
        .bind(last.as_millis())
        .bind(wanted.known_at.map(Timestamp::as_millis))
        .bind(wanted.unclear)
        .bind(wanted.jobs)
        .bind(wanted.max_changes.saturating_add(1))
        .bind(wanted.max_changes.saturating_add(1))
        .fetch_all(connection)
        .await?;
    let (mut all_links, mut changes, mut count) = (Vec::new(), Changes::new(), 0);
    for row in &rows {
        let (part, file): (i32, Uuid) = (row.try_get(0)?, row.try_get(1)?);
        let (number, at) = (row.try_get(4)?, Timestamp::from_millis(row.try_get(5)?));
        if part == 1 {
            let (job, role, linked) = (row.try_get(2)?, row.try_get::<i16, _>(3)?.into(), row.try_get(6)?);
            all_links.push(Link { file, at, job, version: number, role, linked });
        } else {
            changes.entry(file).or_default().push(LevelChange { at, delta: number });
            count += 1;
        }
    }
    bounded(all_links.len(), wanted.max_changes, "links of files")?;
    bounded(count, wanted.max_changes, "changes of files")?;
    let links = links(all_links);
    bounded(links.len(), i64::try_from(wanted.max_files).unwrap_or(i64::MAX), "shared files")?;
    Ok(Found { links, changes })
}
