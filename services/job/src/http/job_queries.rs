//! Reads of jobs: a page of jobs, one job, its outputs.

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use epoch::Timestamp;
use http_kit::{
    ApiPath, ApiQuery, Caller, Page, PageQuery, Problem, command_response::etag, min_version::MinVersion,
    page::row_limit, parameters::OrganizationPath,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    ownership::not_found,
    parameters::JobPath,
    reads::{version, wait_for_version},
    responses::{ListProblems, ReadJobProblems},
    state::HttpState,
};
use crate::{
    domain::job::Job,
    projections::{
        job_status::JobStatus,
        jobs::{self, JobRow, JobWithFiles, OutputRow},
        known_files::FileStatus,
    },
};

/// A job in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobSummary {
    /// Job id.
    id: Uuid,
    /// Display name.
    #[schema(example = "Checksum of March")]
    name: String,
    status: JobStatus,
    /// Job configuration that the job was created from.
    job_configuration_id: Uuid,
    /// Time limit of a run, in milliseconds.
    #[schema(example = 60_000)]
    timeout_ms: i64,
    /// User who created the job. `null` if an API key or a service created it.
    #[schema(required = true)]
    user_id: Option<Uuid>,
    /// Machine that the job is or was assigned to. `null` before the assignment.
    #[schema(required = true)]
    machine_id: Option<Uuid>,
    /// Exit code of the program. `null` unless the program exited.
    #[schema(required = true, example = 0)]
    exit_code: Option<i32>,
    /// Human-readable reason for a failure, cancellation or loss.
    #[schema(required = true, example = "exit code 3")]
    reason: Option<String>,
    /// Time of creation (RFC 3339, UTC).
    #[schema(format = DateTime, example = "2026-03-01T12:00:00.000Z")]
    created_at: String,
    /// Time when the job was queued (RFC 3339, UTC).
    #[schema(required = true, format = DateTime, example = "2026-03-01T12:00:01.000Z")]
    queued_at: Option<String>,
    /// Time when the program started (RFC 3339, UTC).
    #[schema(required = true, format = DateTime, example = "2026-03-01T12:00:02.000Z")]
    started_at: Option<String>,
    /// Time when the job ended (RFC 3339, UTC).
    #[schema(required = true, format = DateTime, example = "2026-03-01T12:00:03.250Z")]
    finished_at: Option<String>,
    /// Run time in milliseconds, up to now while the job is running. `null` if it never started.
    #[schema(required = true, example = 1_250)]
    run_ms: Option<i64>,
    /// `true` while the job is running, so that `run_ms` still grows.
    #[schema(example = false)]
    provisional: bool,
    /// Version, incremented by each event of the job.
    #[schema(example = 5)]
    version: u64,
}

/// A job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobResponse {
    #[serde(flatten)]
    summary: JobSummary,
    /// Argument list; the first element is the program.
    #[schema(example = json!(["sh", "-c", "sha256sum inputs/* > outputs/checksums.txt"]))]
    command: Vec<String>,
    /// Input files, ordered by id.
    input_file_ids: Vec<Uuid>,
    /// Output files, ordered by id.
    output_file_ids: Vec<Uuid>,
}

/// An output file of a job. `name`, `bytes` and `status` are `null` until the job service has received the events of the
/// file, usually for less than a second.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobOutputResponse {
    /// File id.
    id: Uuid,
    /// File name.
    #[schema(required = true, example = "checksums.txt")]
    name: Option<String>,
    /// Size in bytes.
    #[schema(required = true, example = 85)]
    bytes: Option<i64>,
    /// Status of the file.
    #[schema(required = true)]
    status: Option<FileStatus>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobFilter {
    /// Returns only jobs with this status, for example `running`. Default: all jobs.
    #[serde(default)]
    status: Option<JobStatus>,
}

impl JobSummary {
    fn new(row: JobRow, now: Timestamp) -> Self {
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

/// List jobs.
///
/// Returns the organization's jobs, newest first, optionally only those with one status.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/jobs", tag = "jobs",
    params(OrganizationPath, JobFilter, PageQuery),
    responses(
        (status = 200, description = "One page of jobs.", body = Page<JobSummary>),
        ListProblems,
    )
)]
pub(crate) async fn list_jobs(
    State(state): State<HttpState>,
    ApiPath(OrganizationPath { org }): ApiPath<OrganizationPath>,
    caller: Caller,
    ApiQuery(JobFilter { status }): ApiQuery<JobFilter>,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Json<Page<JobSummary>>, Problem> {
    caller.in_organization(org)?;
    let pool = state.store.pool();
    let fetch = |after, limit| jobs::list(pool, org, status, after, limit);
    let page = Page::fetch(&query, |row: &JobRow| row.id, fetch).await?;
    let now = Timestamp::now();
    Ok(Json(page.map(|row| JobSummary::new(row, now))))
}

/// Get a job.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/jobs/{job}", tag = "jobs",
    params(JobPath, MinVersion),
    responses(
        (
            status = 200, description = "The job.", body = JobResponse,
            headers(("ETag" = String, description = "Quoted version of the job, for example `\"5\"`.")),
        ),
        ReadJobProblems,
    )
)]
pub(crate) async fn get_job(
    State(state): State<HttpState>,
    ApiPath(JobPath { org, job }): ApiPath<JobPath>,
    caller: Caller,
    ApiQuery(min_version): ApiQuery<MinVersion>,
) -> Result<Response, Problem> {
    caller.in_organization(org)?;
    wait_for_version(&state.progress, &state.jobs, org, job, min_version).await?;
    let row = jobs::find(state.store.pool(), org, job).await?;
    let JobWithFiles { job: mut row, input_file_ids, output_file_ids } = row.ok_or_else(|| not_found::<Job>(job))?;
    let etag = [(header::ETAG, etag(version(row.version)))];
    let command = std::mem::take(&mut row.command);
    let summary = JobSummary::new(row, Timestamp::now());
    Ok((etag, Json(JobResponse { summary, command, input_file_ids, output_file_ids })).into_response())
}

/// List a job's outputs.
///
/// Returns the files that the job's program wrote, ordered by file id.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/jobs/{job}/outputs", tag = "jobs",
    params(JobPath, MinVersion, PageQuery),
    responses(
        (status = 200, description = "One page of output files.", body = Page<JobOutputResponse>),
        ReadJobProblems,
    )
)]
pub(crate) async fn list_job_outputs(
    State(state): State<HttpState>,
    ApiPath(JobPath { org, job }): ApiPath<JobPath>,
    caller: Caller,
    ApiQuery(min_version): ApiQuery<MinVersion>,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Json<Page<JobOutputResponse>>, Problem> {
    caller.in_organization(org)?;
    // A bad page is refused before the wait for the version.
    let (limit, after) = (query.limit()?, query.after()?);
    wait_for_version(&state.progress, &state.jobs, org, job, min_version).await?;
    if !jobs::exists(state.store.pool(), org, job).await? {
        return Err(not_found::<Job>(job));
    }
    let rows = jobs::list_outputs(state.store.pool(), org, job, after, row_limit(limit)).await?;
    let response = |OutputRow { id, name, bytes, status }| JobOutputResponse { id, name, bytes, status };
    Ok(Json(Page::of(rows, limit, |row| row.id)?.map(response)))
}
