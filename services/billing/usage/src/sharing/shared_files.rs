//! The files that jobs share, read in one statement.
//!
//! The problem: how much of a file is whose takes its links and its changes, and which files matter takes both tables again. What isn't any
//! job's takes the sums of all files beside it.
//!
//! The invariant: one statement finds the files of a period and reads what is needed of them, from indexes; files that were
//! never linked cost one look. What is read is bounded; more than the bound is an error and never a part of the truth.

use std::{collections::BTreeMap, error::Error, str::FromStr};

use epoch::Timestamp;
use rating::{
    calendar::span::Span,
    metering::{compute::JobRun, level::LevelChange},
};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    page::Page,
    read_error::{ReadError, bounded},
    read_models::{
        file_links::{Link, Links, links},
        storage_changes::Changes,
    },
    rollup::sums::{Pieces, Read, Scope},
    row::{A, B, ID, OTHER, PART, PART_OF_SUMS, PLACE, SAID, X, Y, at_most, run},
};

/// The statement of what is shared, and of the sums.
pub const STATEMENT: &str =
    concat!(include_str!("../queries/shared_files.sql"), "union all\n", include_str!("../queries/sums.sql"));

/// The same, and of a page of the jobs that ran or that files were ever linked to.
pub const WITH_JOBS: &str = concat!(
    include_str!("../queries/shared_files.sql"),
    "union all\n",
    include_str!("../queries/linked_jobs.sql"),
    "union all\n",
    include_str!("../queries/runs.sql"),
    "union all\n",
    include_str!("../queries/sums.sql")
);

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
    /// Whether it matters whose the jobs are.
    pub owners: bool,
    /// Which jobs are listed, if any are.
    pub page: Option<Page>,
    /// Sums of which scopes, for each span.
    pub scopes: &'a [Scope],
    /// Before when, beside those in the spans.
    pub from: Timestamp,
    /// Spans that follow each other from there on.
    pub spans: &'a [Span],
    /// The most sums: subjects times spans.
    pub max_sums: i64,
}

/// What is known of a job from its creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owner {
    /// Who created it.
    pub user: Option<Uuid>,
    /// What it was created from.
    pub configuration: Option<Uuid>,
}

/// What is known of jobs.
pub type Owners = BTreeMap<Uuid, Owner>;

/// Reading so many links that don't matter costs less than looking for each of a thousand files.
pub const MANY_LINKS: i64 = 5_000;

/// Files that jobs were ever linked to, up to and with the last instant that was asked for.
#[derive(Debug, Default)]
pub struct Found {
    /// From when to when jobs used them.
    pub links: Links,
    /// How much they held while jobs used them in the period; what was before may be put together.
    pub changes: Changes,
    /// Of the jobs, if it matters.
    pub owners: Owners,
    /// Sums by scope and subject.
    pub sums: Read,
    /// By job, if any are listed.
    pub runs: Vec<JobRun<Uuid, Uuid>>,
    /// Jobs that files were ever linked to, if any are listed.
    pub linked: Vec<Uuid>,
}

/// Reads what is wanted.
///
/// # Errors
/// [`ReadError`], also when there is more than may be read.
pub async fn read(connection: &mut PgConnection, wanted: &Wanted<'_>) -> Result<Found, ReadError> {
    let (first, last) = wanted.period;
    let mut pieces = Pieces::within(wanted.spans);
    pieces.add(wanted.scopes, wanted.from, wanted.spans);
    let statement = if wanted.page.is_some() { WITH_JOBS } else { STATEMENT };
    let mut query = pieces
        .bind(statement, wanted.organization)
        .bind(first.as_millis())
        .bind(last.as_millis())
        .bind(wanted.known_at.map(Timestamp::as_millis))
        .bind(wanted.unclear)
        .bind(wanted.jobs)
        .bind(wanted.max_changes.saturating_add(1))
        .bind(wanted.max_changes.saturating_add(1))
        .bind(wanted.many_links)
        .bind(wanted.owners);
    if let Some(page) = wanted.page {
        query = query.bind(page.after.unwrap_or_default()).bind(at_most(page.limit));
    }
    let rows = query.fetch_all(connection).await?;
    let (mut found, mut all_links, mut count) = (Found::default(), Vec::with_capacity(rows.len()), 0);
    for row in &rows {
        match row.try_get::<i32, _>(PART)? {
            PART_OF_SUMS => found.sums.take_in(row, wanted.spans.len(), wanted.max_sums)?,
            2 => found.runs.push(run(row, row.try_get(ID)?)?),
            6 => {
                let change = LevelChange { at: Timestamp::from_millis(row.try_get(A)?), delta: row.try_get(B)? };
                found.changes.entry(row.try_get(ID)?).or_default().push(change);
                count += 1;
            }
            9 => {
                let (file, at) = (row.try_get(ID)?, Timestamp::from_millis(row.try_get(A)?));
                let (job, role, version) = (row.try_get(OTHER)?, row.try_get(PLACE)?, row.try_get(B)?);
                all_links.push(Link { file, at, job, version, role, linked: row.try_get(SAID)? });
                if let (Some(delta), Some(since)) = (parsed(row, X)?, parsed(row, Y)?) {
                    let held = || vec![LevelChange { at: Timestamp::from_millis(since), delta }];
                    found.changes.entry(file).or_insert_with(held);
                }
            }
            11 => found.linked.push(row.try_get(ID)?),
            _ => {
                let owner = Owner { user: row.try_get(OTHER)?, configuration: parsed(row, X)? };
                found.owners.insert(row.try_get(ID)?, owner);
            }
        }
    }
    bounded(all_links.len(), wanted.max_changes, "links of files")?;
    bounded(count, wanted.max_changes, "changes of files")?;
    found.runs.sort_unstable_by_key(|run| run.job);
    found.links = links(all_links);
    bounded(found.links.len(), i64::try_from(wanted.max_files).unwrap_or(i64::MAX), "shared files")?;
    Ok(found)
}

/// What stands in a column of text, if anything does.
fn parsed<T: FromStr<Err: Error + Send + Sync + 'static>>(
    row: &PgRow,
    column: usize,
) -> Result<Option<T>, sqlx::Error> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(|text| text.parse().map_err(|error: T::Err| sqlx::Error::Decode(error.into()))).transpose()
}
