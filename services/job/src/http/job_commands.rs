//! Commands to jobs: create, replace input files, queue, cancel.

use axum::extract::State;
use epoch::Timestamp;
use http_kit::{
    ApiPath, Caller, Command, CommandResponse, Problem, Role,
    access::require,
    parameters::{IdempotencyKey, IfMatch, OrganizationPath},
    repeated_commands::first_result_or,
};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    ownership::require_owned,
    parameters::JobPath,
    responses::{ChangedResponse, CreateJobProblems, JobCommandProblems},
    state::HttpState,
};
use crate::{
    domain::{
        job::{CreateJob, JobCommand},
        job_configuration::JobSettings,
    },
    input_files::require_complete_files,
    timeline::JobTimeline,
};

/// A new job.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateJobRequest {
    /// Job configuration that the job copies its settings from.
    job_configuration_id: Uuid,
    /// Display name, 1 to 200 characters. Default: the name of the job configuration.
    #[serde(default)]
    #[schema(example = "Checksum of March")]
    name: Option<String>,
    /// Input files: at most 1,000 complete files of the organization. Repeated ids count once. Default: none.
    #[serde(default)]
    file_ids: Vec<Uuid>,
}

/// The new set of a job's input files.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplaceJobFilesRequest {
    /// Input files: at most 1,000 complete files of the organization. Repeated ids count once.
    file_ids: Vec<Uuid>,
}

/// Reason for a cancellation.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CancelJobRequest {
    /// Human-readable reason, 1 to 1,000 characters. Default: `cancelled by` and the caller.
    #[serde(default)]
    #[schema(example = "wrong input file")]
    reason: Option<String>,
}

/// Create a job.
///
/// Creates a job from a job configuration, with a copy of its settings. The job does not run until it is queued. Requires
/// the role `member`.
#[utoipa::path(
    post, path = "/api/v1/organizations/{org}/jobs", tag = "jobs",
    params(OrganizationPath, IdempotencyKey),
    request_body = CreateJobRequest,
    responses(
        (
            status = 201, description = "Job created.", body = CommandResponse,
            headers(
                ("ETag" = String, description = "Quoted version of the job: `\"1\"`, or `\"2\"` with input files."),
                ("Location" = String, description = "Path of the job."),
            ),
        ),
        CreateJobProblems,
        (
            status = 422, body = Problem, content_type = "application/problem+json",
            description = "The job configuration is unknown or retired, a file is unknown or not complete, the name is \
                invalid, or the `Idempotency-Key` was used with another body.",
        ),
    )
)]
pub(crate) async fn create_job(
    State(state): State<HttpState>,
    ApiPath(OrganizationPath { org }): ApiPath<OrganizationPath>,
    command: Command<CreateJobRequest>,
) -> Result<CommandResponse, Problem> {
    require(&command.caller, org, Role::Member)?;
    let CreateJobRequest { job_configuration_id, name, file_ids } = command.body;
    let context = command.context.for_tenant(org);
    let executed = match settings_for_new_job(&state, org, job_configuration_id, &file_ids).await {
        Ok(settings) => {
            let create = JobCommand::Create(CreateJob {
                organization_id: org,
                job_configuration_id,
                name: name.unwrap_or(settings.name),
                command: settings.command,
                timeout_ms: settings.timeout_ms,
                user_id: command.caller.user_id,
                file_ids,
            });
            state.jobs.create(Uuid::now_v7(), &create, &context).await?
        }
        Err(refusal) => first_result_or(&state.jobs, &context, refusal).await?,
    };
    Ok(CommandResponse::created(&executed, |id| format!("/api/v1/organizations/{org}/jobs/{id}")))
}

/// Checks the configuration and the input files of a new job, and returns the settings to copy.
async fn settings_for_new_job(
    state: &HttpState,
    organization: Uuid,
    configuration: Uuid,
    file_ids: &[Uuid],
) -> Result<JobSettings, Problem> {
    let unusable = |detail: String| {
        Problem::unprocessable(detail.clone())
            .of_kind("/problems/unusable-job-configuration", "job configuration is unknown or retired")
            .at("/job_configuration_id", detail)
    };
    let loaded = state.configurations.load(configuration).await?;
    if loaded.state.organization() != Some(organization) {
        return Err(unusable(format!("job configuration {configuration} does not exist")));
    }
    let settings = loaded.state.settings_for_new_job().map_err(|error| unusable(error.to_string()))?;
    require_complete_files(state.store.pool(), organization, file_ids).await?;
    Ok(settings.clone())
}

/// Replace a job's input files.
///
/// Replaces the whole set of input files. Possible until the job is queued. Requires the role `member`.
#[utoipa::path(
    put, path = "/api/v1/organizations/{org}/jobs/{job}/files", tag = "jobs",
    params(JobPath, IfMatch),
    request_body = ReplaceJobFilesRequest,
    responses(
        ChangedResponse,
        JobCommandProblems,
        (
            status = 409, body = Problem, content_type = "application/problem+json",
            description = "The job is already queued or has ended, or concurrent changes kept conflicting with the request.",
        ),
        (
            status = 422, body = Problem, content_type = "application/problem+json",
            description = "A file is unknown or not complete, or there are more than 1,000 files.",
        ),
    )
)]
pub(crate) async fn replace_job_files(
    State(state): State<HttpState>,
    ApiPath(path): ApiPath<JobPath>,
    command: Command<ReplaceJobFilesRequest>,
) -> Result<CommandResponse, Problem> {
    let Command { context, caller, body: ReplaceJobFilesRequest { file_ids } } = command;
    require_member(&state, &path, &caller).await?;
    let context = context.for_tenant(path.org);
    if let Err(refusal) = require_complete_files(state.store.pool(), path.org, &file_ids).await {
        return Ok(first_result_or(&state.jobs, &context, refusal).await?.into());
    }
    Ok(state.jobs.execute(path.job, &JobCommand::ReplaceFiles { file_ids }, &context).await?.into())
}

/// Queue a job.
///
/// Queues the job for the next free machine. Jobs start in the order they were queued. Queueing a queued or running job
/// changes nothing. Requires the role `member`.
#[utoipa::path(
    post, path = "/api/v1/organizations/{org}/jobs/{job}/queue", tag = "jobs",
    params(JobPath, IdempotencyKey, IfMatch),
    responses(
        ChangedResponse,
        JobCommandProblems,
        (
            status = 409, body = Problem, content_type = "application/problem+json",
            description = "The job has ended, the organization's budget is used up and stops new jobs, or concurrent \
                changes kept conflicting with the request.",
        ),
        (
            status = 422, body = Problem, content_type = "application/problem+json",
            description = "The request has a body, or the `Idempotency-Key` was used with another body.",
        ),
    )
)]
pub(crate) async fn queue_job(
    State(state): State<HttpState>,
    ApiPath(path): ApiPath<JobPath>,
    command: Command<()>,
) -> Result<CommandResponse, Problem> {
    require_member(&state, &path, &command.caller).await?;
    let context = command.context.for_tenant(path.org);
    if let Err(refusal) = state.budget_check.require_budget(path.org).await {
        return Ok(first_result_or(&state.jobs, &context, refusal).await?.into());
    }
    Ok(state.jobs.execute(path.job, &JobCommand::Queue, &context).await?.into())
}

/// Cancel a job.
///
/// Ends the job at once, in any phase; its run time ends now. The machine of a running job stops the program at its next
/// heartbeat, within about five seconds. Cancelling a cancelled job changes nothing. Requires the role `member`.
#[utoipa::path(
    post, path = "/api/v1/organizations/{org}/jobs/{job}/cancel", tag = "jobs",
    params(JobPath, IdempotencyKey, IfMatch),
    request_body = Option<CancelJobRequest>,
    responses(
        ChangedResponse,
        JobCommandProblems,
        (
            status = 409, body = Problem, content_type = "application/problem+json",
            description = "The job has ended for another reason, or concurrent changes kept conflicting with the request.",
        ),
        (
            status = 422, body = Problem, content_type = "application/problem+json",
            description = "The reason is invalid, or the `Idempotency-Key` was used with another body.",
        ),
    )
)]
pub(crate) async fn cancel_job(
    State(state): State<HttpState>,
    ApiPath(path): ApiPath<JobPath>,
    command: Command<Option<CancelJobRequest>>,
) -> Result<CommandResponse, Problem> {
    require_member(&state, &path, &command.caller).await?;
    let reason = command.body.unwrap_or_default().reason;
    let reason = reason.unwrap_or_else(|| format!("cancelled by {}", command.caller.actor));
    let mut context = command.context.for_tenant(path.org);
    // The clock of the machine may be ahead of ours; a run must not end before it started.
    let started_at = JobTimeline::load(&state.store, path.job).await?.started_at;
    context.occurred_at = Timestamp::now().max(started_at.unwrap_or_default());
    Ok(state.jobs.execute(path.job, &JobCommand::Cancel { reason }, &context).await?.into())
}

/// Checks access to an existing job. Existence is checked before the role, so that ids reveal nothing.
async fn require_member(state: &HttpState, path: &JobPath, caller: &Caller) -> Result<(), Problem> {
    caller.in_organization(path.org)?;
    require_owned(&state.jobs, path.org, path.job).await?;
    caller.at_least(Role::Member)
}
