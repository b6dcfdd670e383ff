//! Jobs and their files, as people and machines look at them.
//!
//! The problem: one event may change any number of rows (a job of a thousand files), and a batch has events of many jobs.
//!
//! The invariant: a job's row and its files are what its events up to `version` say. A batch is folded in memory and
//! written with one statement a table, so the rows of a job are never seen in between.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use contracts::job::{AGGREGATE, FileRole, JobEvent};
use epoch::{Batch, Envelope, Timestamp, handler::EventHandler};
use epoch_postgres::{HandlerError, PgTx, version_number};
use serde::Serialize;
use sqlx::{FromRow, PgExecutor, types::Json};
use uuid::Uuid;

use super::job_status::JobStatus;

/// The subscription's name.
pub(crate) const NAME: &str = "jobs";

const OF_BATCH: &str = include_str!("sql/find_jobs_by_id.sql");
const WRITE: &str = include_str!("sql/upsert_jobs.sql");
const UNLINK: &str = include_str!("sql/unlink_job_files.sql");
const LINK: &str = include_str!("sql/link_job_files.sql");
const ONE: &str = include_str!("sql/find_job.sql");
const PAGE: &str = include_str!("sql/list_jobs.sql");
const PAGE_BY_STATUS: &str = include_str!("sql/list_jobs_by_status.sql");
const WAITING: &str = include_str!("sql/list_queued_jobs.sql");
const OUTPUTS: &str = include_str!("sql/list_job_outputs.sql");

/// A job's row; its fields are the table's columns.
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
    /// How long it has run, in milliseconds, as of `now`; `None` when it never started.
    pub(crate) fn run_ms(&self, now: Timestamp) -> Option<i64> {
        let end = self.finished_at.unwrap_or(now.as_millis());
        self.started_at.map(|start| (end - start).max(0))
    }

    fn end(&mut self, status: JobStatus, at: i64) {
        self.status = status;
        self.finished_at = Some(at);
    }
}

/// The projection.
pub(crate) struct Jobs;

#[async_trait]
impl EventHandler<PgTx> for Jobs {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        NAME
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &[AGGREGATE]
    }

    fn tables(&self) -> &'static [&'static str] {
        &["jobs", "job_files"]
    }

    async fn handle(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        let ids: Vec<Uuid> = events.iter().map(|event| event.aggregate_id).collect();
        let rows: Vec<JobRow> = sqlx::query_as(OF_BATCH).bind(ids).fetch_all(tx.connection()).await?;
        let mut changes = Changes { rows: rows.into_iter().map(|row| (row.id, row)).collect(), ..Changes::default() };
        for event in events {
            changes.apply(event)?;
        }
        changes.write(tx).await
    }
}

/// Which file is what to which job.
type Link = (Uuid, &'static str, Uuid);

/// What a batch comes to.
#[derive(Default)]
struct Changes {
    rows: HashMap<Uuid, JobRow>,
    /// Whether it is linked in the end.
    links: BTreeMap<Link, bool>,
}

impl Changes {
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
            return Err(HandlerError::refused(format!("job {id} has no row at version {}", envelope.version)));
        };
        row.version = version_number(envelope.version);
        match event {
            JobEvent::JobCreated(_) => {}
            JobEvent::JobFilesLinked(event) => self.link(id, event.role, event.file_ids, true),
            JobEvent::JobFilesUnlinked(event) => self.link(id, event.role, event.file_ids, false),
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

    fn link(&mut self, job: Uuid, role: FileRole, file_ids: Vec<Uuid>, linked: bool) {
        self.links.extend(file_ids.into_iter().map(|file_id| ((job, role_text(role), file_id), linked)));
    }

    async fn write(self, tx: &mut PgTx) -> Result<(), HandlerError> {
        let rows: Vec<JobRow> = self.rows.into_values().collect();
        sqlx::query(WRITE).bind(Json(rows)).execute(tx.connection()).await?;
        let (linked, unlinked): (Vec<_>, Vec<_>) = self.links.into_iter().partition(|(_, linked)| *linked);
        for (statement, links) in [(UNLINK, unlinked), (LINK, linked)] {
            if links.is_empty() {
                continue;
            }
            let (mut jobs, mut roles, mut files) = (Vec::new(), Vec::new(), Vec::new());
            for ((job, role, file), _) in links {
                jobs.push(job);
                roles.push(role);
                files.push(file);
            }
            sqlx::query(statement).bind(jobs).bind(roles).bind(files).execute(tx.connection()).await?;
        }
        Ok(())
    }
}

fn role_text(role: FileRole) -> &'static str {
    match role {
        FileRole::Input => "input",
        FileRole::Output => "output",
    }
}

/// A job with its files, each kind in the order of their ids; read in one statement, so that they fit its version.
#[derive(Debug, FromRow)]
pub(crate) struct JobWithFiles {
    #[sqlx(flatten)]
    pub(crate) job: JobRow,
    pub(crate) input_file_ids: Vec<Uuid>,
    pub(crate) output_file_ids: Vec<Uuid>,
}

/// One of an organization's jobs.
pub(crate) async fn one(
    executor: impl PgExecutor<'_>,
    organization: Uuid,
    id: Uuid,
) -> Result<Option<JobWithFiles>, sqlx::Error> {
    sqlx::query_as(ONE).bind(organization).bind(id).fetch_optional(executor).await
}

/// Whether the organization has the job.
pub(crate) async fn exists(executor: impl PgExecutor<'_>, organization: Uuid, id: Uuid) -> Result<bool, sqlx::Error> {
    let query = "select exists (select from jobs where organization_id = $1 and id = $2)";
    sqlx::query_scalar(query).bind(organization).bind(id).fetch_one(executor).await
}

/// Up to `limit` of an organization's jobs, newest first, that are older than `after`.
pub(crate) async fn page(
    executor: impl PgExecutor<'_>,
    organization: Uuid,
    status: Option<JobStatus>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<JobRow>, sqlx::Error> {
    let query = sqlx::query_as(if status.is_some() { PAGE_BY_STATUS } else { PAGE });
    let query = query.bind(organization).bind(after.unwrap_or(Uuid::max())).bind(limit);
    let query = match status {
        Some(status) => query.bind(status.as_str()),
        None => query,
    };
    query.fetch_all(executor).await
}

/// A job that waits for a machine.
#[derive(Debug, Clone, Copy, FromRow)]
pub(crate) struct WaitingJob {
    pub(crate) id: Uuid,
    pub(crate) organization_id: Uuid,
    pub(crate) queued_at: i64,
}

/// Up to `limit` jobs that wait, the longest waiting first, after `after`.
pub(crate) async fn waiting(
    executor: impl PgExecutor<'_>,
    after: Option<WaitingJob>,
    limit: i64,
) -> Result<Vec<WaitingJob>, sqlx::Error> {
    let (queued_at, id) = after.map_or((i64::MIN, Uuid::nil()), |job| (job.queued_at, job.id));
    sqlx::query_as(WAITING).bind(queued_at).bind(id).bind(limit).fetch_all(executor).await
}

/// A file that a job wrote, with what is known of it.
#[derive(Debug, FromRow)]
pub(crate) struct OutputRow {
    pub(crate) id: Uuid,
    pub(crate) name: Option<String>,
    pub(crate) bytes: Option<i64>,
    pub(crate) status: Option<String>,
}

/// Up to `limit` files that a job wrote, in the order of their ids, after `after`.
pub(crate) async fn outputs(
    executor: impl PgExecutor<'_>,
    organization: Uuid,
    job: Uuid,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<OutputRow>, sqlx::Error> {
    let after = after.unwrap_or(Uuid::nil());
    sqlx::query_as(OUTPUTS).bind(organization).bind(job).bind(after).bind(limit).fetch_all(executor).await
}
