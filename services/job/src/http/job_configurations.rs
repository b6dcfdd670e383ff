//! Job configurations: define, look at, revise, retire.

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use epoch::Timestamp;
use serde::{Deserialize, Serialize};
use service_kit::{
    ApiPath, ApiQuery, Caller, Changed, Command, Page, PageQuery, Problem, Role, changed::etag, min_version::MinVersion,
};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Api, not_found, require_owned, rows_for, version, wait_for_version};
use crate::{
    domain::job_configuration::{DEFAULT_TIMEOUT_MS, JobConfiguration, JobConfigurationCommand, Settings},
    projections::job_configurations::{JobConfigurationRow, one, page},
};

/// What jobs are run with.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobConfigurationBody {
    /// What people call it: 1 to 200 characters.
    name: String,
    /// The argument list, 1 to 64 arguments of at most 4,096 characters; the first is the program.
    command: Vec<String>,
    /// How long a run may take, in milliseconds: 1 to 86,400,000 (a day).
    #[serde(default = "default_timeout_ms")]
    #[schema(default = 3_600_000, minimum = 1, maximum = 86_400_000)]
    timeout_ms: i64,
}

fn default_timeout_ms() -> i64 {
    DEFAULT_TIMEOUT_MS
}

impl From<JobConfigurationBody> for Settings {
    fn from(body: JobConfigurationBody) -> Self {
        let JobConfigurationBody { name, command, timeout_ms } = body;
        Self { name, command, timeout_ms }
    }
}

/// Whether jobs can be created from a configuration.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JobConfigurationStatus {
    /// They can.
    Active,
    /// They can't any more.
    Retired,
}

/// A job configuration, as lists show it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobConfigurationSummary {
    id: Uuid,
    /// What people call it.
    name: String,
    /// How long a run may take, in milliseconds.
    timeout_ms: i64,
    status: JobConfigurationStatus,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
    version: u64,
}

/// A job configuration.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobConfigurationView {
    #[serde(flatten)]
    summary: JobConfigurationSummary,
    /// The argument list; the first is the program.
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

/// Defines a job configuration.
#[utoipa::path(
    post, path = "/api/v1/organizations/{org}/job-configurations", tag = "job configurations",
    params(("org" = Uuid, Path), ("Idempotency-Key" = String, Header)),
    request_body = JobConfigurationBody,
    responses(
        (status = 201, description = "Defined", body = Changed),
        (status = 403, description = "Needs the role admin", body = Problem),
        (status = 404, description = "No such organization", body = Problem),
        (status = 422, description = "Settings that can't work", body = Problem),
    )
)]
pub(crate) async fn define_job_configuration(
    State(api): State<Api>,
    ApiPath(organization): ApiPath<Uuid>,
    command: Command<JobConfigurationBody>,
) -> Result<Changed, Problem> {
    command.caller.in_organization(organization)?;
    command.caller.at_least(Role::Admin)?;
    let define = JobConfigurationCommand::Define { organization_id: organization, settings: command.body.into() };
    let context = command.context.for_tenant(organization);
    let executed = api.configurations.create(Uuid::now_v7(), &define, &context).await?;
    Ok(Changed::created(&executed, |id| format!("/api/v1/organizations/{organization}/job-configurations/{id}")))
}

/// Lists an organization's job configurations, newest first.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/job-configurations", tag = "job configurations",
    params(("org" = Uuid, Path), PageQuery),
    responses(
        (status = 200, description = "A page", body = Page<JobConfigurationSummary>),
        (status = 404, description = "No such organization", body = Problem),
    )
)]
pub(crate) async fn list_job_configurations(
    State(api): State<Api>,
    ApiPath(organization): ApiPath<Uuid>,
    caller: Caller,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Json<Page<JobConfigurationSummary>>, Problem> {
    caller.in_organization(organization)?;
    let (limit, after) = (query.limit()?, query.after()?);
    let rows = page(api.store.pool(), organization, after, rows_for(limit)).await?;
    Ok(Json(Page::of(rows, limit, |row| row.id)?.map(Into::into)))
}

/// Shows a job configuration.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/job-configurations/{configuration}", tag = "job configurations",
    params(("org" = Uuid, Path), ("configuration" = Uuid, Path), MinVersion),
    responses(
        (status = 200, description = "The configuration", body = JobConfigurationView),
        (status = 404, description = "No such configuration", body = Problem),
        (status = 503, description = "Not at that version yet", body = Problem),
    )
)]
pub(crate) async fn get_job_configuration(
    State(api): State<Api>,
    ApiPath((organization, id)): ApiPath<(Uuid, Uuid)>,
    caller: Caller,
    ApiQuery(min_version): ApiQuery<MinVersion>,
) -> Result<Response, Problem> {
    caller.in_organization(organization)?;
    wait_for_version(&api.progress, &api.configurations, organization, id, min_version).await?;
    let found = one(api.store.pool(), organization, id).await?;
    let mut row = found.ok_or_else(|| not_found::<JobConfiguration>(id))?;
    let etag = [(header::ETAG, etag(version(row.version)))];
    let command = std::mem::take(&mut row.command);
    Ok((etag, Json(JobConfigurationView { summary: row.into(), command })).into_response())
}

/// Replaces a job configuration; jobs that exist keep what they have.
#[utoipa::path(
    put, path = "/api/v1/organizations/{org}/job-configurations/{configuration}", tag = "job configurations",
    params(("org" = Uuid, Path), ("configuration" = Uuid, Path), ("If-Match" = Option<String>, Header)),
    request_body = JobConfigurationBody,
    responses(
        (status = 200, description = "Revised", body = Changed),
        (status = 403, description = "Needs the role admin", body = Problem),
        (status = 404, description = "No such configuration", body = Problem),
        (status = 409, description = "Retired", body = Problem),
        (status = 412, description = "Changed since", body = Problem),
        (status = 422, description = "Settings that can't work", body = Problem),
    )
)]
pub(crate) async fn revise_job_configuration(
    State(api): State<Api>,
    ApiPath((organization, id)): ApiPath<(Uuid, Uuid)>,
    command: Command<JobConfigurationBody>,
) -> Result<Changed, Problem> {
    command.caller.in_organization(organization)?;
    require_owned(&api.configurations, organization, id).await?;
    command.caller.at_least(Role::Admin)?;
    let revise = JobConfigurationCommand::Revise(command.body.into());
    let context = command.context.for_tenant(organization);
    Ok(api.configurations.execute(id, &revise, &context).await?.into())
}

/// Retires a job configuration: no new jobs from it.
#[utoipa::path(
    delete, path = "/api/v1/organizations/{org}/job-configurations/{configuration}", tag = "job configurations",
    params(("org" = Uuid, Path), ("configuration" = Uuid, Path), ("If-Match" = Option<String>, Header)),
    responses(
        (status = 200, description = "Retired", body = Changed),
        (status = 403, description = "Needs the role admin", body = Problem),
        (status = 404, description = "No such configuration", body = Problem),
        (status = 412, description = "Changed since", body = Problem),
    )
)]
pub(crate) async fn retire_job_configuration(
    State(api): State<Api>,
    ApiPath((organization, id)): ApiPath<(Uuid, Uuid)>,
    command: Command<()>,
) -> Result<Changed, Problem> {
    command.caller.in_organization(organization)?;
    require_owned(&api.configurations, organization, id).await?;
    command.caller.at_least(Role::Admin)?;
    let context = command.context.for_tenant(organization);
    Ok(api.configurations.execute(id, &JobConfigurationCommand::Retire, &context).await?.into())
}
