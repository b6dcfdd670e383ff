//! Jobs as people look at them: one, a list, what it wrote.

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use epoch::Timestamp;
use serde::{Deserialize, Serialize};
use service_kit::{ApiPath, ApiQuery, Caller, Page, PageQuery, Problem, changed::etag, min_version::MinVersion};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{Api, not_found, rows_for, version, wait_for_version};
use crate::{
    domain::job::Job,
    projections::{
        job_status::JobStatus,
        jobs::{self, JobRow, JobWithFiles, OutputRow},
    },
};

/// A job, as lists show it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobSummary {
    id: Uuid,
    /// What people call it.
    name: String,
    status: JobStatus,
    /// The configuration it was created from.
    job_configuration_id: Uuid,
    /// How long a run may take, in milliseconds.
    timeout_ms: i64,
    /// The user who created it, and whom its run is attributed to.
    user_id: Option<Uuid>,
    /// The machine that has or had it.
    machine_id: Option<Uuid>,
    /// What its program said at its end.
    exit_code: Option<i32>,
    /// Why it ended as it did.
    reason: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    queued_at: Option<String>,
    #[schema(format = DateTime)]
    started_at: Option<String>,
    #[schema(format = DateTime)]
    finished_at: Option<String>,
    /// How long it ran, in milliseconds; while it runs, up to now.
    run_ms: Option<i64>,
    /// Whether it still runs, so that `run_ms` grows.
    provisional: bool,
    version: u64,
}

/// A job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobView {
    #[serde(flatten)]
    summary: JobSummary,
    /// The argument list; the first is the program.
    command: Vec<String>,
    /// What it reads, in the order of the ids.
    input_file_ids: Vec<Uuid>,
    /// What it wrote, in the order of the ids.
    output_file_ids: Vec<Uuid>,
}

/// A file that a job wrote.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OutputFile {
    /// The file's id.
    id: Uuid,
    /// Its name; `null` while this service hasn't heard of the file.
    name: Option<String>,
    /// Its size; `null` while this service hasn't heard of the file.
    bytes: Option<i64>,
    /// `uploading`, `completed`, `aborted` or `deleted`; `null` while this service hasn't heard of the file.
    status: Option<String>,
}

/// Which jobs.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StatusQuery {
    /// Only jobs that are there in their lives; all if not said.
    #[serde(default)]
    status: Option<JobStatus>,
}

impl JobSummary {
    fn of(row: JobRow, now: Timestamp) -> Self {
        let text = |millis: i64| Timestamp::from_millis(millis).to_string();
        Self {
            id: row.id,
            status: row.status,
            job_configuration_id: row.job_configuration_id,
            timeout_ms: row.timeout_ms,
            user_id: row.user_id,
            machine_id: row.machine_id,
            exit_code: row.exit_code,
            created_at: text(row.created_at),
            queued_at: row.queued_at.map(text),
            started_at: row.started_at.map(text),
            finished_at: row.finished_at.map(text),
            run_ms: row.run_ms(now),
            provisional: row.status == JobStatus::Running,
            version: version(row.version).get(),
            name: row.name,
            reason: row.reason,
        }
    }
}

/// Lists an organization's jobs, newest first.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/jobs", tag = "jobs",
    params(("org" = Uuid, Path), StatusQuery, PageQuery),
    responses(
        (status = 200, description = "A page", body = Page<JobSummary>),
        (status = 404, description = "No such organization", body = Problem),
    )
)]
pub(crate) async fn list_jobs(
    State(api): State<Api>,
    ApiPath(organization): ApiPath<Uuid>,
    caller: Caller,
    ApiQuery(StatusQuery { status }): ApiQuery<StatusQuery>,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Json<Page<JobSummary>>, Problem> {
    caller.in_organization(organization)?;
    let (limit, after) = (query.limit()?, query.after()?);
    let rows = jobs::page(api.store.pool(), organization, status, after, rows_for(limit)).await?;
    let now = Timestamp::now();
    Ok(Json(Page::of(rows, limit, |row| row.id)?.map(|row| JobSummary::of(row, now))))
}

/// Shows a job.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/jobs/{job}", tag = "jobs",
    params(("org" = Uuid, Path), ("job" = Uuid, Path), MinVersion),
    responses(
        (status = 200, description = "The job", body = JobView),
        (status = 404, description = "No such job", body = Problem),
        (status = 503, description = "Not at that version yet", body = Problem),
    )
)]
pub(crate) async fn get_job(
    State(api): State<Api>,
    ApiPath((organization, job)): ApiPath<(Uuid, Uuid)>,
    caller: Caller,
    ApiQuery(min_version): ApiQuery<MinVersion>,
) -> Result<Response, Problem> {
    caller.in_organization(organization)?;
    wait_for_version(&api.progress, &api.jobs, organization, job, min_version).await?;
    let found = jobs::one(api.store.pool(), organization, job).await?;
    let JobWithFiles { job: mut row, input_file_ids, output_file_ids } = found.ok_or_else(|| not_found::<Job>(job))?;
    let etag = [(header::ETAG, etag(version(row.version)))];
    let command = std::mem::take(&mut row.command);
    let summary = JobSummary::of(row, Timestamp::now());
    Ok((etag, Json(JobView { summary, command, input_file_ids, output_file_ids })).into_response())
}

/// Lists what a job wrote, in the order of the files' ids.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/jobs/{job}/outputs", tag = "jobs",
    params(("org" = Uuid, Path), ("job" = Uuid, Path), MinVersion, PageQuery),
    responses(
        (status = 200, description = "A page", body = Page<OutputFile>),
        (status = 404, description = "No such job", body = Problem),
        (status = 503, description = "Not at that version yet", body = Problem),
    )
)]
pub(crate) async fn list_job_outputs(
    State(api): State<Api>,
    ApiPath((organization, job)): ApiPath<(Uuid, Uuid)>,
    caller: Caller,
    ApiQuery(min_version): ApiQuery<MinVersion>,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Json<Page<OutputFile>>, Problem> {
    caller.in_organization(organization)?;
    let (limit, after) = (query.limit()?, query.after()?);
    wait_for_version(&api.progress, &api.jobs, organization, job, min_version).await?;
    if !jobs::exists(api.store.pool(), organization, job).await? {
        return Err(not_found::<Job>(job));
    }
    let rows = jobs::outputs(api.store.pool(), organization, job, after, rows_for(limit)).await?;
    let view = |OutputRow { id, name, bytes, status }| OutputFile { id, name, bytes, status };
    Ok(Json(Page::of(rows, limit, |row| row.id)?.map(view)))
}
