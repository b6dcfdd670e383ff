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

/// Its columns, by place.
const PART: usize = 0;
const FILE: usize = 1;
const JOB: usize = 2;
const ROLE: usize = 3;
const VERSION: usize = 4;
const AT: usize = 5;
const LINKED: usize = 6;
const HELD: usize = 7;
const SINCE: usize = 8;

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
    /// An organization that ever had fewer links has all of them read at once; of one with more, the links of each file are looked for.
    pub many_links: i64,
}

/// Reading so many links that don't matter costs less than looking for each of a thousand files.
pub const MANY_LINKS: i64 = 5_000;

/// Files that jobs were ever linked to, up to and with the last instant that was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
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
        .bind(wanted.many_links)
        .fetch_all(connection)
        .await?;
    let (mut all_links, mut changes, mut count) = (Vec::with_capacity(rows.len()), Changes::new(), 0);
    for row in &rows {
        let file: Uuid = row.try_get(FILE)?;
        let at = Timestamp::from_millis(row.try_get(AT)?);
        let held: Option<i64> = row.try_get(HELD)?;
        if row.try_get::<i32, _>(PART)? == 1 {
            let (job, role, version) = (row.try_get(JOB)?, row.try_get::<i16, _>(ROLE)?.into(), row.try_get(VERSION)?);
            all_links.push(Link { file, at, job, version, role, linked: row.try_get(LINKED)? });
            if let Some(delta) = held {
                let since = Timestamp::from_millis(row.try_get(SINCE)?);
                changes.entry(file).or_insert_with(|| vec![LevelChange { at: since, delta }]);
            }
        } else if let Some(delta) = held {
            changes.entry(file).or_default().push(LevelChange { at, delta });
            count += 1;
        }
    }
    bounded(all_links.len(), wanted.max_changes, "links of files")?;
    bounded(count, wanted.max_changes, "changes of files")?;
    let links = links(all_links);
    bounded(links.len(), i64::try_from(wanted.max_files).unwrap_or(i64::MAX), "shared files")?;
    Ok(Found { links, changes })
}
