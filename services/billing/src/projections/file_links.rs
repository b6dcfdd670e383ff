//! Which jobs use which files, and from when to when.
//!
//! The problem: a file's cost is shared by the jobs that use it, and what was linked late, or learnt late, must be told apart.
//!
//! The invariant: what each event says about a file and a job is one row, in the order of the job's events; a job uses a file while
//! it is linked in at least one role.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use contracts::job::{AGGREGATE, FileRole, JobEvent};
use epoch::{Batch, Timestamp, handler::EventHandler};
use epoch_postgres::{HandlerError, PgTx, version_number};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::{ReadError, bounded};
use crate::domain::sharing::{Change, FileChange};

/// The subscription's name.
pub const NAME: &str = "file-links";

/// Fills the table `file_link_changes`.
pub struct FileLinks;

#[async_trait]
impl EventHandler<PgTx> for FileLinks {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        NAME
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &[AGGREGATE]
    }

    fn tables(&self) -> &'static [&'static str] {
        &["file_link_changes"]
    }

    async fn handle(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        for event in events {
            let (organization, files, role, linked) = match event.decode::<JobEvent>()? {
                JobEvent::JobFilesLinked(linked) => (linked.organization_id, linked.file_ids, linked.role, true),
                JobEvent::JobFilesUnlinked(unlinked) => {
                    (unlinked.organization_id, unlinked.file_ids, unlinked.role, false)
                }
                _ => continue,
            };
            let insert = "insert into file_link_changes \
                     (organization_id, file_id, job_id, role, version, at, linked, recorded_at) \
                 select $1, file_id, $3, $4, $5, $6, $7, $8 from unnest($2::uuid[]) as f (file_id) on conflict do nothing";
            sqlx::query(insert)
                .bind(organization)
                .bind(files)
                .bind(event.aggregate_id)
                .bind(role_number(role))
                .bind(version_number(event.version))
                .bind(event.occurred_at.as_millis())
                .bind(linked)
                .bind(event.recorded_at.as_millis())
                .execute(tx.connection())
                .await?;
        }
        Ok(())
    }
}

const fn role_number(role: FileRole) -> i16 {
    match role {
        FileRole::Input => 1,
        FileRole::Output => 2,
    }
}

/// Links and unlinks by file, in the order in which they apply.
pub type Links = BTreeMap<Uuid, Vec<FileChange<Uuid>>>;

const OF_FILES: &str = "select file_id, job_id, role, at, linked from file_link_changes \
     where organization_id = $1 and file_id = any($2) and at <= $3 and ($4::bigint is null or recorded_at <= $4) \
     order by file_id, at, job_id, version, role limit $5";

/// When jobs began and ceased to use these files, up to and with `last`, as far as it was recorded at `known_at`.
///
/// # Errors
/// [`ReadError`], also when more than `limit` links and unlinks say so.
pub async fn of_files(
    connection: &mut PgConnection,
    organization: Uuid,
    files: &[Uuid],
    last: Timestamp,
    known_at: Option<Timestamp>,
    limit: i64,
) -> Result<Links, ReadError> {
    let query = sqlx::query(OF_FILES).bind(organization).bind(files).bind(last.as_millis());
    let rows =
        query.bind(known_at.map(Timestamp::as_millis)).bind(limit.saturating_add(1)).fetch_all(connection).await?;
    bounded(rows.len(), limit, "links of files")?;
    let mut links = Links::new();
    let mut roles: BTreeMap<(Uuid, Uuid), BTreeSet<i16>> = BTreeMap::new();
    for row in &rows {
        let (file, job, role): (Uuid, Uuid, i16) =
            (row.try_get("file_id")?, row.try_get("job_id")?, row.try_get("role")?);
        let linked_as = roles.entry((file, job)).or_default();
        let used_before = !linked_as.is_empty();
        let changed = if row.try_get("linked")? { linked_as.insert(role) } else { linked_as.remove(&role) };
        let used = !linked_as.is_empty();
        if !changed || used == used_before {
            continue;
        }
        let change = if used { Change::Link(job) } else { Change::Unlink(job) };
        links.entry(file).or_default().push(FileChange { at: Timestamp::from_millis(row.try_get("at")?), change });
    }
    Ok(links)
}

/// The files that jobs were ever linked to by events up to and with `last`; of all jobs, or only of these.
///
/// # Errors
/// [`ReadError`], also when there are more than `limit`.
pub async fn files_of(
    connection: &mut PgConnection,
    organization: Uuid,
    jobs: Option<&[Uuid]>,
    last: Timestamp,
    limit: i64,
) -> Result<Vec<Uuid>, ReadError> {
    let query = match jobs {
        Some(_) => {
            "select distinct file_id from file_link_changes \
             where organization_id = $1 and at <= $2 and linked and job_id = any($4) order by file_id limit $3"
        }
        None => {
            "select distinct file_id from file_link_changes \
             where organization_id = $1 and at <= $2 and linked order by file_id limit $3"
        }
    };
    let mut query = sqlx::query_scalar(query).bind(organization).bind(last.as_millis()).bind(limit.saturating_add(1));
    if let Some(jobs) = jobs {
        query = query.bind(jobs);
    }
    let files = query.fetch_all(connection).await?;
    bounded(files.len(), limit, "shared files")?;
    Ok(files)
}

/// Up to `limit` jobs after `after` that files were ever linked to by events up to and with `last`, by id.
///
/// # Errors
/// When the database gives no answer.
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
