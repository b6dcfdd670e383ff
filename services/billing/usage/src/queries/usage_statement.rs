//! What an answer about usage is made of, read in one statement.
//!
//! The problem: an answer is put together from sums, runs, files, links and single changes. Asked for one by one, each costs a round
//! trip, and all of them a transaction that keeps them at one moment.
//!
//! The invariant: one statement reads all of it, from indexes, and what isn't wanted is not looked for. What is read is bounded;
//! more than the bound is an error and never a part of the truth. Only of what is odd, as much is read as was asked for: however much
//! there is, it must not keep anyone from being charged. What files that ever held less than nothing hold is told by the database, which
//! doesn't hand out their changes.

use epoch::Timestamp;
use rating::{
    calendar::span::{Span, Window},
    metering::{compute::JobRun, level::LevelChange},
};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::{
    page::Page,
    read_error::{ReadError, bounded},
    read_models::{
        file_links::{Link, Links, links},
        storage_changes::Changes,
    },
    rollup::sums::{self, Pieces, Read, Scope},
    row::{A, B, ID, OTHER, PART, PART_OF_SUMS, PLACE, SAID, X, at_most, run, whole},
};

/// The statement of what is listed, of runs and of the sums. Where only sums are asked for, theirs is sent alone.
pub const STATEMENT: &str = concat!(
    include_str!("listed.sql"),
    "union all\n",
    include_str!("runs.sql"),
    "union all\n",
    include_str!("sums.sql")
);

/// What is asked.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// Whose usage.
    pub organization: Uuid,
    /// The period, and as of when.
    pub window: Window,
    /// What was recorded later isn't known.
    pub known_at: Option<Timestamp>,
    /// Sums of which scopes, for each span.
    pub scopes: &'a [Scope],
    /// Sums of which scopes, for all spans together. In which span they are found says nothing.
    pub whole: &'a [Scope],
    /// Before when, beside those in the spans.
    pub from: Timestamp,
    /// Spans that follow each other from there on.
    pub spans: &'a [Span],
    /// Runs of these jobs.
    pub jobs: Page,
    /// Files that may have been stored in what counts of the period, with their links.
    pub files: Page,
    /// How many of the files, and how many of the runs, that are odd; the first by id.
    pub flags: usize,
    /// Files that are listed even if they seem not to have been stored, and whose changes are read.
    pub unclear: &'a [Uuid],
    /// Whether it matters what the sum of all hides.
    pub hidden: bool,
    /// The most sums: subjects times spans.
    pub max_sums: i64,
    /// The most changes of files, and the most links.
    pub max_changes: i64,
}

/// How much a file held for how long, by its sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Area {
    /// The file.
    pub file: Uuid,
    /// Byte-milliseconds.
    pub byte_ms: i128,
    /// Whether it was stored at all; what it held below nothing may make up for what it held above.
    pub stored: bool,
}

/// What was read.
#[derive(Debug, Default)]
pub struct Found {
    /// Sums by scope and subject.
    pub sums: Read,
    /// By job.
    pub runs: Vec<JobRun<Uuid, Uuid>>,
    /// Runs that may be odd, by job.
    pub odd: Vec<JobRun<Uuid, Uuid>>,
    /// Files and their areas, by id.
    pub files: Vec<Area>,
    /// Links of these files.
    pub links: Links,
    /// Changes of those of these files that have links or are unclear, as far as they matter: of one with links how it changed while it
    /// had one, in the period; of an unclear one how it did in the period. What was before may be put together.
    pub changes: Changes,
    /// The files that held less than nothing in what counts of the period, by id.
    pub below_nothing: Vec<Uuid>,
    /// If it matters, whether a file is stored at `as_of` whose level may be missing in the sum of all: it was ever below nothing, or is unclear.
    pub hidden: bool,
}

/// Reads what is wanted.
///
/// # Errors
/// [`ReadError`], also when there is more than may be read.
pub async fn read(connection: &mut PgConnection, wanted: &Wanted<'_>) -> Result<Found, ReadError> {
    let (first, last) = wanted.window.needed();
    let mut pieces = Pieces::within(wanted.spans);
    pieces.add(wanted.scopes, wanted.from, wanted.spans);
    let ends = wanted.spans.iter().map(|span| span.end()).max().unwrap_or(wanted.from);
    pieces.add_whole(wanted.whole, wanted.from, ends);
    // Beyond what counts there is nothing, though the period has begun to be known.
    let files = if wanted.window.counted().is_empty() { 0 } else { wanted.files.limit };
    let listed = wanted.jobs.limit > 0 || files > 0 || wanted.flags > 0 || wanted.hidden;
    let mut query = pieces.bind(if listed { STATEMENT } else { sums::STATEMENT }, wanted.organization);
    if listed {
        query = query
            .bind(first.as_millis())
            .bind(last.as_millis())
            .bind(wanted.known_at.map(Timestamp::as_millis))
            .bind(wanted.files.after.unwrap_or_default())
            .bind(at_most(files))
            .bind(wanted.unclear)
            .bind(at_most(wanted.flags))
            .bind(wanted.max_changes.saturating_add(1))
            .bind(wanted.hidden)
            .bind(wanted.jobs.after.unwrap_or_default())
            .bind(at_most(wanted.jobs.limit));
    }
    let rows = query.fetch_all(connection).await?;
    let mut found = Found::default();
    let (mut changes, mut all_links) = (0, Vec::new());
    for row in &rows {
        let id: Uuid = row.try_get(ID)?;
        match row.try_get::<i32, _>(PART)? {
            PART_OF_SUMS => found.sums.take_in(row, wanted.spans.len(), wanted.max_sums)?,
            2 => found.runs.push(run(row, id)?),
            3 => found.odd.push(run(row, id)?),
            4 => {
                let byte_ms = whole(row, X)?;
                found.files.push(Area { file: id, byte_ms, stored: row.try_get(SAID)? });
            }
            5 => all_links.push(Link {
                file: id,
                at: Timestamp::from_millis(row.try_get(A)?),
                job: row.try_get(OTHER)?,
                version: row.try_get(B)?,
                role: row.try_get(PLACE)?,
                linked: row.try_get(SAID)?,
            }),
            6 => {
                let at = Timestamp::from_millis(row.try_get(A)?);
                let change = LevelChange { at, delta: row.try_get(B)? };
                found.changes.entry(id).or_default().push(change);
                changes += 1;
            }
            7 => found.below_nothing.push(id),
            _ => found.hidden = true,
        }
    }
    bounded(changes, wanted.max_changes, "changes of files")?;
    bounded(all_links.len(), wanted.max_changes, "links of files")?;
    found.runs.sort_unstable_by_key(|run| run.job);
    found.odd.sort_unstable_by_key(|run| run.job);
    found.files.sort_unstable();
    found.below_nothing.sort_unstable();
    found.links = links(all_links);
    Ok(found)
}
