//! Commands to jobs: create, change the files, queue, cancel.

use axum::extract::State;
use epoch::Timestamp;
use serde::Deserialize;
use service_kit::{ApiPath, Changed, Command, Problem, Role};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Api, first_answer_or, require_owned};
use crate::{
    domain::{
        job::{CreateJob, JobCommand},
        job_configuration::Settings,
    },
    input_files::require_complete,
    timeline::Moments,
};

/// A new job.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateJobBody {
    /// The configuration it is created from; the job keeps a copy.
    job_configuration_id: Uuid,
    /// What people call it, 1 to 200 characters; the configuration's name if not said.
    #[serde(default)]
    name: Option<String>,
    /// Its input files: complete files of the organization, at most 1,000.
    #[serde(default)]
    file_ids: Vec<Uuid>,
}

/// A job's whole set of input files.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplaceFilesBody {
    /// Complete files of the organization, at most 1,000; repeated ids count once.
    file_ids: Vec<Uuid>,
}

/// Why a job is cancelled.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CancelJobBody {
    /// In words for people, 1 to 1,000 characters.
    #[serde(default)]
    reason: Option<String>,
}

/// Creates a job from a configuration.
#[utoipa::path(
    post, path = "/api/v1/organizations/{org}/jobs", tag = "jobs",
    params(("org" = Uuid, Path), ("Idempotency-Key" = String, Header)),
    request_body = CreateJobBody,
    responses(
        (status = 201, description = "Created", body = Changed),
        (status = 403, description = "Needs the role member", body = Problem),
        (status = 404, description = "No such organization", body = Problem),
        (status = 422, description = "The configuration is unknown or retired, or a file can't be used", body = Problem),
    )
)]
pub(crate) async fn create_job(
    State(api): State<Api>,
    ApiPath(organization): ApiPath<Uuid>,
    command: Command<CreateJobBody>,
) -> Result<Changed, Problem> {
    command.caller.in_organization(organization)?;
    command.caller.at_least(Role::Member)?;
    let CreateJobBody { job_configuration_id, name, file_ids } = command.body;
    let context = command.context.for_tenant(organization);
    let executed = match ingredients(&api, organization, job_configuration_id, &file_ids).await {
        Ok(settings) => {
            let create = JobCommand::Create(CreateJob {
                organization_id: organization,
                job_configuration_id,
                name: name.unwrap_or(settings.name),
                command: settings.command,
                timeout_ms: settings.timeout_ms,
                user_id: command.caller.user_id,
                file_ids,
            });
            api.jobs.create(Uuid::now_v7(), &create, &context).await?
        }
        Err(refusal) => first_answer_or(&api.store, &context, refusal).await?,
    };
    Ok(Changed::created(&executed, |id| format!("/api/v1/organizations/{organization}/jobs/{id}")))
}

/// What a job is made of, if the organization has all of it.
async fn ingredients(
    api: &Api,
    organization: Uuid,
    configuration: Uuid,
    file_ids: &[Uuid],
) -> Result<Settings, Problem> {
    let refuse = |detail: String| {
        Problem::unprocessable(detail.clone())
            .of_kind("/problems/unusable-job-configuration", "job configuration is unknown or retired")
            .at("/job_configuration_id", detail)
    };
    let loaded = api.configurations.load(configuration).await?;
    if loaded.state.organization() != Some(organization) {
        return Err(refuse(format!("job configuration {configuration} does not exist")));
    }
    let settings = loaded.state.for_new_jobs().map_err(|error| refuse(error.to_string()))?;
    require_complete(api.store.pool(), organization, file_ids).await?;
    Ok(settings.clone())
}

/// Replaces a job's whole set of input files, before it is queued.
#[utoipa::path(
    put, path = "/api/v1/organizations/{org}/jobs/{job}/files", tag = "jobs",
    params(("org" = Uuid, Path), ("job" = Uuid, Path), ("If-Match" = Option<String>, Header)),
    request_body = ReplaceFilesBody,
    responses(
        (status = 200, description = "Replaced", body = Changed),
        (status = 403, description = "Needs the role member", body = Problem),
        (status = 404, description = "No such job", body = Problem),
        (status = 409, description = "Queued already", body = Problem),
        (status = 412, description = "Changed since", body = Problem),
        (status = 422, description = "A file can't be used", body = Problem),
    )
)]
pub(crate) async fn replace_job_files(
    State(api): State<Api>,
    ApiPath((organization, job)): ApiPath<(Uuid, Uuid)>,
    command: Command<ReplaceFilesBody>,
) -> Result<Changed, Problem> {
    command.caller.in_organization(organization)?;
    require_owned(&api.jobs, organization, job).await?;
    command.caller.at_least(Role::Member)?;
    let file_ids = command.body.file_ids;
    let context = command.context.for_tenant(organization);
    if let Err(refusal) = require_complete(api.store.pool(), organization, &file_ids).await {
        return Ok(first_answer_or(&api.store, &context, refusal).await?.into());
    }
    Ok(api.jobs.execute(job, &JobCommand::ReplaceFiles { file_ids }, &context).await?.into())
}

/// Lets a job wait for a machine.
#[utoipa::path(
    post, path = "/api/v1/organizations/{org}/jobs/{job}/queue", tag = "jobs",
    params(
        ("org" = Uuid, Path), ("job" = Uuid, Path), ("Idempotency-Key" = String, Header),
        ("If-Match" = Option<String>, Header),
    ),
    responses(
        (status = 200, description = "Queued", body = Changed),
        (status = 403, description = "Needs the role member", body = Problem),
        (status = 404, description = "No such job", body = Problem),
        (status = 409, description = "Ended, or the budget is used up and stops new jobs", body = Problem),
        (status = 412, description = "Changed since", body = Problem),
    )
)]
pub(crate) async fn queue_job(
    State(api): State<Api>,
    ApiPath((organization, job)): ApiPath<(Uuid, Uuid)>,
    command: Command<()>,
) -> Result<Changed, Problem> {
    command.caller.in_organization(organization)?;
    require_owned(&api.jobs, organization, job).await?;
    command.caller.at_least(Role::Member)?;
    let context = command.context.for_tenant(organization);
    if let Err(refusal) = api.standing.require(organization).await {
        return Ok(first_answer_or(&api.store, &context, refusal).await?.into());
    }
    Ok(api.jobs.execute(job, &JobCommand::Queue, &context).await?.into())
}

/// Ends a job, wherever it is; one that runs is stopped by its machine soon after.
#[utoipa::path(
    post, path = "/api/v1/organizations/{org}/jobs/{job}/cancel", tag = "jobs",
    params(
        ("org" = Uuid, Path), ("job" = Uuid, Path), ("Idempotency-Key" = String, Header),
        ("If-Match" = Option<String>, Header),
    ),
    request_body = Option<CancelJobBody>,
    responses(
        (status = 200, description = "Cancelled", body = Changed),
        (status = 403, description = "Needs the role member", body = Problem),
        (status = 404, description = "No such job", body = Problem),
        (status = 409, description = "Ended otherwise", body = Problem),
        (status = 412, description = "Changed since", body = Problem),
        (status = 422, description = "A reason that can't be kept", body = Problem),
    )
)]
pub(crate) async fn cancel_job(
    State(api): State<Api>,
    ApiPath((organization, job)): ApiPath<(Uuid, Uuid)>,
    command: Command<Option<CancelJobBody>>,
) -> Result<Changed, Problem> {
    command.caller.in_organization(organization)?;
    require_owned(&api.jobs, organization, job).await?;
    command.caller.at_least(Role::Member)?;
    let reason = command.body.unwrap_or_default().reason;
    let reason = reason.unwrap_or_else(|| format!("cancelled by {}", command.caller.actor));
    let mut context = command.context.for_tenant(organization);
    // The machine's clock may be ahead; a run never ends before it began.
    let started_at = Moments::of(&api.store, job).await?.started_at;
    context.occurred_at = Timestamp::now().max(started_at.unwrap_or_default());
    Ok(api.jobs.execute(job, &JobCommand::Cancel { reason }, &context).await?.into())
}
