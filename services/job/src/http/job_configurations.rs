//! Routes of job configurations.

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use epoch::{CommandContext, Timestamp};
use http_kit::{
    ApiPath, ApiQuery, Caller, Command, CommandResponse, Page, PageQuery, Problem, Role,
    access::require,
    command_response::etag,
    min_version::MinVersion,
    parameters::{IdempotencyKey, IfMatch, OrganizationPath},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    ownership::{not_found, require_owned},
    parameters::JobConfigurationPath,
    reads::{version, wait_for_version},
    responses::{
        ChangedResponse, DefineJobConfigurationProblems, JobConfigurationCommandProblems, ListProblems,
        ReadJobConfigurationProblems,
    },
    state::HttpState,
};
use crate::{
    domain::job_configuration::{DEFAULT_TIMEOUT_MS, JobConfiguration, JobConfigurationCommand, JobSettings},
    projections::job_configurations::{self, JobConfigurationRow},
};

/// Settings of a job configuration.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobConfigurationRequest {
    /// Display name, 1 to 200 characters. Jobs without a name of their own get this name.
    #[schema(example = "Checksum")]
    name: String,
    /// Argument list of the program: 1 to 64 arguments of at most 4,096 characters each. The first is the program.
    #[schema(example = json!(["sh", "-c", "sha256sum inputs/* > outputs/checksums.txt"]))]
    command: Vec<String>,
    /// Time limit of a run, in milliseconds: 1 to 86,400,000 (one day). Default: 3,600,000 (one hour).
    #[serde(default = "default_timeout_ms")]
    #[schema(default = 3_600_000, minimum = 1, maximum = 86_400_000, example = 60_000)]
    timeout_ms: i64,
}

fn default_timeout_ms() -> i64 {
    DEFAULT_TIMEOUT_MS
}

impl From<JobConfigurationRequest> for JobSettings {
    fn from(request: JobConfigurationRequest) -> Self {
        let JobConfigurationRequest { name, command, timeout_ms } = request;
        Self { name, command, timeout_ms }
    }
}

/// Status of a job configuration: `active`, or `retired` when no new jobs can be created from it.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JobConfigurationStatus {
    Active,
    Retired,
}

/// A job configuration in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobConfigurationSummary {
    /// Job configuration id.
    id: Uuid,
    /// Display name.
    #[schema(example = "Checksum")]
    name: String,
    /// Time limit of a run, in milliseconds.
    #[schema(example = 60_000)]
    timeout_ms: i64,
    status: JobConfigurationStatus,
    /// Time of creation (RFC 3339, UTC).
    #[schema(format = DateTime, example = "2026-03-01T12:00:00.000Z")]
    created_at: String,
    /// Time of the last change (RFC 3339, UTC).
    #[schema(format = DateTime, example = "2026-03-01T12:00:00.000Z")]
    updated_at: String,
    /// Version, incremented by each change.
    #[schema(example = 1)]
    version: u64,
}

/// A job configuration.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobConfigurationResponse {
    #[serde(flatten)]
    summary: JobConfigurationSummary,
    /// Argument list; the first element is the program.
    #[schema(example = json!(["sh", "-c", "sha256sum inputs/* > outputs/checksums.txt"]))]
    command: Vec<String>,
}

impl From<JobConfigurationRow> for JobConfigurationSummary {
    fn from(row: JobConfigurationRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            timeout_ms: row.timeout_ms,
            status: if row.retired { JobConfigurationStatus::Retired } else { JobConfigurationStatus::Active },
            created_at: Timestamp::from_millis(row.created_at).to_string(),
            updated_at: Timestamp::from_millis(row.updated_at).to_string(),
            version: version(row.version).get(),
        }
    }
}

/// Define a job configuration.
///
/// Creates a reusable template of jobs. Requires the role `admin`.
#[utoipa::path(
    post, path = "/api/v1/organizations/{org}/job-configurations", tag = "job configurations",
    params(OrganizationPath, IdempotencyKey),
    request_body = JobConfigurationRequest,
    responses(
        (
            status = 201, description = "Job configuration created.", body = CommandResponse,
            headers(
                ("ETag" = String, description = "Quoted version of the job configuration: `\"1\"`."),
                ("Location" = String, description = "Path of the job configuration."),
            ),
        ),
        DefineJobConfigurationProblems,
        (
            status = 422, body = Problem, content_type = "application/problem+json",
            description = "A setting is invalid, or the `Idempotency-Key` was used with another body.",
        ),
    )
)]
pub(crate) async fn define_job_configuration(
    State(state): State<HttpState>,
    ApiPath(OrganizationPath { org }): ApiPath<OrganizationPath>,
    command: Command<JobConfigurationRequest>,
) -> Result<CommandResponse, Problem> {
    require(&command.caller, org, Role::Admin)?;
    let define = JobConfigurationCommand::Define { organization_id: org, settings: command.body.into() };
    let context = command.context.for_tenant(org);
    let executed = state.configurations.create(Uuid::now_v7(), &define, &context).await?;
    Ok(CommandResponse::created(&executed, |id| format!("/api/v1/organizations/{org}/job-configurations/{id}")))
}

/// List job configurations.
///
/// Returns the organization's job configurations, newest first, including retired ones.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/job-configurations", tag = "job configurations",
    params(OrganizationPath, PageQuery),
    responses(
        (status = 200, description = "One page of job configurations.", body = Page<JobConfigurationSummary>),
        ListProblems,
    )
)]
pub(crate) async fn list_job_configurations(
    State(state): State<HttpState>,
    ApiPath(OrganizationPath { org }): ApiPath<OrganizationPath>,
    caller: Caller,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Json<Page<JobConfigurationSummary>>, Problem> {
    caller.in_organization(org)?;
    let pool = state.store.pool();
    let fetch = |after, limit| job_configurations::list(pool, org, after, limit);
    Ok(Json(Page::fetch(&query, |row: &JobConfigurationRow| row.id, fetch).await?.map(Into::into)))
}

/// Get a job configuration.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/job-configurations/{configuration}", tag = "job configurations",
    params(JobConfigurationPath, MinVersion),
    responses(
        (
            status = 200, description = "The job configuration.", body = JobConfigurationResponse,
            headers(("ETag" = String, description = "Quoted version of the job configuration, for example `\"3\"`.")),
        ),
        ReadJobConfigurationProblems,
    )
)]
pub(crate) async fn get_job_configuration(
    State(state): State<HttpState>,
    ApiPath(JobConfigurationPath { org, configuration: id }): ApiPath<JobConfigurationPath>,
    caller: Caller,
    ApiQuery(min_version): ApiQuery<MinVersion>,
) -> Result<Response, Problem> {
    caller.in_organization(org)?;
    wait_for_version(&state.progress, &state.configurations, org, id, min_version).await?;
    let row = job_configurations::find(state.store.pool(), org, id).await?;
    let mut row = row.ok_or_else(|| not_found::<JobConfiguration>(id))?;
    let etag = [(header::ETAG, etag(version(row.version)))];
    let command = std::mem::take(&mut row.command);
    Ok((etag, Json(JobConfigurationResponse { summary: row.into(), command })).into_response())
}

/// Revise a job configuration.
///
/// Replaces all settings. Existing jobs keep the settings they were created with. Requires the role `admin`.
#[utoipa::path(
    put, path = "/api/v1/organizations/{org}/job-configurations/{configuration}", tag = "job configurations",
    params(JobConfigurationPath, IfMatch),
    request_body = JobConfigurationRequest,
    responses(
        ChangedResponse,
        JobConfigurationCommandProblems,
        (
            status = 409, body = Problem, content_type = "application/problem+json",
            description = "The job configuration is retired, or concurrent changes kept conflicting with the request.",
        ),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "A setting is invalid."),
    )
)]
pub(crate) async fn revise_job_configuration(
    State(state): State<HttpState>,
    ApiPath(path): ApiPath<JobConfigurationPath>,
    command: Command<JobConfigurationRequest>,
) -> Result<CommandResponse, Problem> {
    let Command { context, caller, body } = command;
    let revise = JobConfigurationCommand::Revise(body.into());
    execute(&state, path, &caller, context, &revise).await
}

/// Retire a job configuration.
///
/// No new jobs can be created from a retired job configuration; existing jobs are unaffected. Retiring it again changes
/// nothing. Requires the role `admin`.
#[utoipa::path(
    delete,
    path = "/api/v1/organizations/{org}/job-configurations/{configuration}",
    tag = "job configurations",
    params(JobConfigurationPath, IfMatch),
    responses(
        ChangedResponse,
        JobConfigurationCommandProblems,
        (
            status = 409, body = Problem, content_type = "application/problem+json",
            description = "Concurrent changes kept conflicting with the request.",
        ),
    )
)]
pub(crate) async fn retire_job_configuration(
    State(state): State<HttpState>,
    ApiPath(path): ApiPath<JobConfigurationPath>,
    command: Command<()>,
) -> Result<CommandResponse, Problem> {
    execute(&state, path, &command.caller, command.context, &JobConfigurationCommand::Retire).await
}

/// Executes a command to an existing configuration. Existence is checked before the role, so that ids reveal nothing.
async fn execute(
    state: &HttpState,
    JobConfigurationPath { org, configuration }: JobConfigurationPath,
    caller: &Caller,
    context: CommandContext,
    command: &JobConfigurationCommand,
) -> Result<CommandResponse, Problem> {
    caller.in_organization(org)?;
    require_owned(&state.configurations, org, configuration).await?;
    caller.at_least(Role::Admin)?;
    Ok(state.configurations.execute(configuration, command, &context.for_tenant(org)).await?.into())
}
