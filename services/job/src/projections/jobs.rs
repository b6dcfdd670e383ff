//! Read model of jobs and their files.
//!
//! One event may change a thousand rows of `job_files`, and a batch contains events of many jobs. A batch is therefore folded
//! in memory and written with one statement per table. The batch's transaction makes a job's row and files visible together.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use contracts::job::{AGGREGATE, FileRole, JobEvent};
use epoch::{Batch, Envelope, Timestamp};
use epoch_postgres::{HandlerError, PgTx, Projection, version_number};
use serde::Serialize;
use sqlx::{FromRow, PgExecutor, types::Json};
use uuid::Uuid;

use super::{job_status::JobStatus, known_files::FileStatus};

const FIND_BY_ID: &str = include_str!("sql/find_jobs_by_id.sql");
const UPSERT: &str = include_str!("sql/upsert_jobs.sql");
const UNLINK: &str = include_str!("sql/unlink_job_files.sql");
const LINK: &str = include_str!("sql/link_job_files.sql");
const FIND: &str = include_str!("sql/find_job.sql");
const LIST: &str = include_str!("sql/list_jobs.sql");
const LIST_BY_STATUS: &str = include_str!("sql/list_jobs_by_status.sql");
const LIST_QUEUED: &str = include_str!("sql/list_queued_jobs.sql");
const LIST_OUTPUTS: &str = include_str!("sql/list_job_outputs.sql");

/// A row of `jobs`. The field names are the column names, since batches are written as JSON records.
#[derive(Debug, Clone, FromRow, Serialize)]
pub(crate) struct JobRow {
    pub(crate) id: Uuid,
    pub(crate) organization_id: Uuid,
    pub(crate) job_configuration_id: Uuid,
    pub(crate) name: String,
    #[sqlx(json)]
    pub(crate) command: Vec<String>,
    pub(crate) timeout_ms: i64,
    pub(crate) user_id: Option<Uuid>,
    #[sqlx(try_from = "String")]
    pub(crate) status: JobStatus,
    pub(crate) machine_id: Option<Uuid>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) reason: Option<String>,
    pub(crate) created_at: i64,
    pub(crate) queued_at: Option<i64>,
    pub(crate) started_at: Option<i64>,
    pub(crate) finished_at: Option<i64>,
    pub(crate) version: i64,
}

impl JobRow {
    /// Returns the run time in milliseconds, up to `now` for a running job, or `None` when the job never started.
    pub(crate) fn run_ms(&self, now: Timestamp) -> Option<i64> {
        let end = self.finished_at.unwrap_or(now.as_millis());
        self.started_at.map(|start| (end - start).max(0))
    }

    fn end(&mut self, status: JobStatus, at: i64) {
        self.status = status;
        self.finished_at = Some(at);
    }
}

/// Maintains the tables `jobs` and `job_files`.
pub(crate) struct Jobs;

#[async_trait]
impl Projection for Jobs {
    const NAME: &'static str = "jobs";
    const AGGREGATES: &'static [&'static str] = &[AGGREGATE];
    const TABLES: &'static [&'static str] = &["jobs", "job_files"];

    async fn apply(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        let ids: Vec<Uuid> = events.iter().map(|event| event.aggregate_id).collect();
        let rows: Vec<JobRow> = sqlx::query_as(FIND_BY_ID).bind(ids).fetch_all(tx.connection()).await?;
        let rows = rows.into_iter().map(|row| (row.id, row)).collect();
        let mut changes = JobChanges { rows, links: BTreeMap::new() };
        for event in events {
            changes.apply(event)?;
        }
        changes.write(tx).await
    }
}

/// Key of a row of `job_files`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct FileLink {
    job_id: Uuid,
    role: &'static str,
    file_id: Uuid,
}

/// Net effect of a batch.
struct JobChanges {
    rows: HashMap<Uuid, JobRow>,
    /// Final state of each touched link: `true` for linked, `false` for unlinked.
    links: BTreeMap<FileLink, bool>,
}

impl JobChanges {
    fn apply(&mut self, envelope: &Envelope) -> Result<(), HandlerError> {
        let (id, at) = (envelope.aggregate_id, envelope.occurred_at.as_millis());
        let event = envelope.decode()?;
        if let JobEvent::JobCreated(event) = event {
            let row = JobRow {
                id,
                organization_id: event.organization_id,
                job_configuration_id: event.job_configuration_id,
                name: event.name,
                command: event.command,
                timeout_ms: event.timeout_ms,
                user_id: event.user_id,
                status: JobStatus::Created,
                machine_id: None,
                exit_code: None,
                reason: None,
                created_at: at,
                queued_at: None,
                started_at: None,
                finished_at: None,
                version: version_number(envelope.version),
            };
            self.rows.insert(id, row);
            return Ok(());
        }
        let Some(row) = self.rows.get_mut(&id) else {
            return Err(HandlerError::refused(format!("job {id} has no row before version {}", envelope.version)));
        };
        row.version = version_number(envelope.version);
        match event {
            JobEvent::JobCreated(_) => {}
            JobEvent::JobFilesLinked(event) => self.set_links(id, event.role, event.file_ids, true),
            JobEvent::JobFilesUnlinked(event) => self.set_links(id, event.role, event.file_ids, false),
            JobEvent::JobQueued(_) => {
                row.status = JobStatus::Queued;
                row.queued_at = Some(at);
            }
            JobEvent::JobAssigned(event) => {
                row.status = JobStatus::Assigned;
                row.machine_id = Some(event.machine_id);
            }
            JobEvent::JobStarted(_) => {
                row.status = JobStatus::Running;
                row.started_at = Some(at);
            }
            JobEvent::JobSucceeded(event) => {
                row.exit_code = Some(event.exit_code);
                row.end(JobStatus::Succeeded, at);
            }
            JobEvent::JobFailed(event) => {
                row.exit_code = event.exit_code;
                row.reason = Some(event.reason);
                row.end(JobStatus::Failed, at);
            }
            JobEvent::JobTimedOut(_) => row.end(JobStatus::TimedOut, at),
            JobEvent::JobCancelled(event) => {
                row.reason = Some(event.reason);
                row.end(JobStatus::Cancelled, at);
            }
            JobEvent::JobLost(event) => {
                row.reason = Some(event.reason);
                row.end(JobStatus::Lost, at);
            }
        }
        Ok(())
    }

    fn set_links(&mut self, job_id: Uuid, role: FileRole, file_ids: Vec<Uuid>, linked: bool) {
        let role = role_name(role);
        self.links.extend(file_ids.into_iter().map(|file_id| (FileLink { job_id, role, file_id }, linked)));
    }

    async fn write(self, tx: &mut PgTx) -> Result<(), HandlerError> {
        let rows: Vec<JobRow> = self.rows.into_values().collect();
        sqlx::query(UPSERT).bind(Json(rows)).execute(tx.connection()).await?;
        let (linked, unlinked): (Vec<_>, Vec<_>) = self.links.into_iter().partition(|(_, linked)| *linked);
        for (statement, links) in [(UNLINK, unlinked), (LINK, linked)] {
            if links.is_empty() {
                continue;
            }
            let (mut job_ids, mut roles, mut file_ids) = (Vec::new(), Vec::new(), Vec::new());
            for (FileLink { job_id, role, file_id }, _) in links {
                job_ids.push(job_id);
                roles.push(role);
                file_ids.push(file_id);
            }
            sqlx::query(statement).bind(job_ids).bind(roles).bind(file_ids).execute(tx.connection()).await?;
        }
        Ok(())
    }
}

fn role_name(role: FileRole) -> &'static str {
    match role {
        FileRole::Input => "input",
        FileRole::Output => "output",
    }
}

/// A job with its files, ordered by id. One statement reads all of it, so the files belong to the version of the row.
#[derive(Debug, FromRow)]
pub(crate) struct JobWithFiles {
    #[sqlx(flatten)]
    pub(crate) job: JobRow,
    pub(crate) input_file_ids: Vec<Uuid>,
    pub(crate) output_file_ids: Vec<Uuid>,
}

/// Returns a job of the organization.
pub(crate) async fn find(
    executor: impl PgExecutor<'_>,
    organization: Uuid,
    id: Uuid,
) -> Result<Option<JobWithFiles>, sqlx::Error> {
    sqlx::query_as(FIND).bind(organization).bind(id).fetch_optional(executor).await
}

/// Returns whether the organization has the job.
pub(crate) async fn exists(executor: impl PgExecutor<'_>, organization: Uuid, id: Uuid) -> Result<bool, sqlx::Error> {
    let query = "select exists (select from jobs where organization_id = $1 and id = $2)";
    sqlx::query_scalar(query).bind(organization).bind(id).fetch_one(executor).await
}

/// Returns up to `limit` jobs of the organization that are older than `after`, newest first.
pub(crate) async fn list(
    executor: impl PgExecutor<'_>,
    organization: Uuid,
    status: Option<JobStatus>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<JobRow>, sqlx::Error> {
    let query = sqlx::query_as(if status.is_some() { LIST_BY_STATUS } else { LIST });
    let query = query.bind(organization).bind(after.unwrap_or(Uuid::max())).bind(limit);
    let query = match status {
        Some(status) => query.bind(status.as_str()),
        None => query,
    };
    query.fetch_all(executor).await
}

/// A queued job, as a position in the queue.
#[derive(Debug, Clone, Copy, FromRow)]
pub(crate) struct QueuedJob {
    pub(crate) id: Uuid,
    pub(crate) organization_id: Uuid,
    pub(crate) queued_at: i64,
}

/// Returns up to `limit` queued jobs that follow `after`, longest waiting first, across all organizations.
pub(crate) async fn list_queued(
    executor: impl PgExecutor<'_>,
    after: Option<QueuedJob>,
    limit: i64,
) -> Result<Vec<QueuedJob>, sqlx::Error> {
    let (queued_at, id) = after.map_or((i64::MIN, Uuid::nil()), |job| (job.queued_at, job.id));
    sqlx::query_as(LIST_QUEUED).bind(queued_at).bind(id).bind(limit).fetch_all(executor).await
}

/// An output file. Its details are `None` until the events of the file arrive in this service.
#[derive(Debug, FromRow)]
pub(crate) struct OutputRow {
    pub(crate) id: Uuid,
    pub(crate) name: Option<String>,
    pub(crate) bytes: Option<i64>,
    pub(crate) status: Option<FileStatus>,
}

/// Returns up to `limit` output files of a job with ids greater than `after`, ordered by id.
pub(crate) async fn list_outputs(
    executor: impl PgExecutor<'_>,
    organization: Uuid,
    job: Uuid,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<OutputRow>, sqlx::Error> {
    let after = after.unwrap_or(Uuid::nil());
    sqlx::query_as(LIST_OUTPUTS).bind(organization).bind(job).bind(after).bind(limit).fetch_all(executor).await
}
