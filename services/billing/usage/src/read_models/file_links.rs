//! Links of files to jobs, over time.
//!
//! Jobs share the cost of the files they use, and links may arrive late. Invariant: each link or unlink in an
//! event is one row, ordered by the version of the job. A job uses a file while it is linked in at least one
//! role.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use contracts::job::{AGGREGATE, FileRole, JobEvent};
use epoch::{Batch, Envelope, Timestamp};
use epoch_postgres::{HandlerError, PgTx, Projection, version_number};
use rating::sharing::file_change::{Change, FileChange};
use sqlx::PgConnection;
use uuid::Uuid;

/// The name of the subscription, which is stored with its cursors.
pub const NAME: &str = "file-links";

/// Projection into the table `file_link_changes`.
pub struct FileLinks;

#[async_trait]
impl Projection for FileLinks {
    const NAME: &'static str = NAME;
    const AGGREGATES: &'static [&'static str] = &[AGGREGATE];
    const TABLES: &'static [&'static str] = &["file_link_changes"];

    async fn apply(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        for event in events {
            let Some(EventLinks { organization, files, role, linked }) = links_of_event(event)? else { continue };
            let insert = "insert into file_link_changes \
                     (organization_id, file_id, job_id, role, version, at, linked, recorded_at, event_id) \
                 select $1, file_id, $3, $4, $5, $6, $7, $8, $9 from unnest($2::uuid[]) as f (file_id) on conflict do nothing";
            sqlx::query(insert)
                .bind(organization)
                .bind(files)
                .bind(event.aggregate_id)
                .bind(role)
                .bind(version_number(event.version))
                .bind(event.occurred_at.as_millis())
                .bind(linked)
                .bind(event.recorded_at.as_millis())
                .bind(event.event_id)
                .execute(tx.connection())
                .await?;
        }
        Ok(())
    }
}

/// The links or unlinks in a job event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventLinks {
    pub(crate) organization: Uuid,
    pub(crate) files: Vec<Uuid>,
    /// The role as it is stored.
    pub(crate) role: i16,
    pub(crate) linked: bool,
}

/// Returns the links of an event, or `None` for other events.
///
/// # Errors
/// [`HandlerError`] when the event cannot be decoded.
pub(crate) fn links_of_event(event: &Envelope) -> Result<Option<EventLinks>, HandlerError> {
    let (organization, files, role, linked) = match event.decode::<JobEvent>()? {
        JobEvent::JobFilesLinked(linked) => (linked.organization_id, linked.file_ids, linked.role, true),
        JobEvent::JobFilesUnlinked(unlinked) => (unlinked.organization_id, unlinked.file_ids, unlinked.role, false),
        _ => return Ok(None),
    };
    Ok(Some(EventLinks { organization, files, role: role_number(role), linked }))
}

const fn role_number(role: FileRole) -> i16 {
    match role {
        FileRole::Input => 1,
        FileRole::Output => 2,
    }
}

/// Links and unlinks by file, in the order in which they apply.
pub type Links = BTreeMap<Uuid, Vec<FileChange<Uuid>>>;

/// A link or unlink of a file and a job, sorted in the order in which they apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkRecord {
    pub(crate) file: Uuid,
    pub(crate) at: Timestamp,
    pub(crate) job: Uuid,
    pub(crate) version: i64,
    pub(crate) role: i32,
    pub(crate) linked: bool,
}

/// Merges the roles of links: a job uses a file while it is linked in at least one role.
pub(crate) fn links(mut all: Vec<LinkRecord>) -> Links {
    all.sort_unstable();
    let mut links = Links::new();
    let mut roles: BTreeMap<(Uuid, Uuid), BTreeSet<i32>> = BTreeMap::new();
    for LinkRecord { file, at, job, role, linked, .. } in all {
        let linked_as = roles.entry((file, job)).or_default();
        let used_before = !linked_as.is_empty();
        let changed = if linked { linked_as.insert(role) } else { linked_as.remove(&role) };
        let used = !linked_as.is_empty();
        if !changed || used == used_before {
            continue;
        }
        let change = if used { Change::Link(job) } else { Change::Unlink(job) };
        links.entry(file).or_default().push(FileChange { at, change });
    }
    links
}

/// Lists up to `limit` jobs after `after` with a link up to and including `last`, by id.
///
/// # Errors
/// The database failed.
pub async fn jobs(
    connection: &mut PgConnection,
    organization: Uuid,
    last: Timestamp,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Uuid>, sqlx::Error> {
    let query = "select distinct job_id from file_link_changes \
         where organization_id = $1 and job_id > $2 and at <= $3 and linked order by job_id limit $4";
    sqlx::query_scalar(query)
        .bind(organization)
        .bind(after.unwrap_or_default())
        .bind(last.as_millis())
        .bind(limit)
        .fetch_all(connection)
        .await
}
