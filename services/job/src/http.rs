//! The service's doors: one for people, through the console, and one for machines.
//!
//! The problem: every route must ask the same questions (who, which organization, does it exist) in the same order.
//! The invariant: another organization's thing is answered exactly like one that doesn't exist.

mod job_commands;
mod job_configurations;
mod job_queries;
mod machines;
mod problems;

use std::time::Duration;

use axum::{Router, extract::FromRef, routing::post};
use epoch::{
    Aggregate, CommandContext, Executed, Repository, Version,
    envelope::StreamKey,
    store::{Appender, FoundCommand, StoreError},
};
use epoch_postgres::{PgStore, Progress, WaitError};
use service_kit::{
    Problem, Secrets,
    min_version::{self, MinVersion},
    server,
};
use tokio_util::sync::CancellationToken;
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    budget_check::Standing,
    domain::{job::Job, job_configuration::JobConfiguration},
};

/// How long a read waits for the version it asks for.
const VERSION_LIMIT: Duration = Duration::from_secs(2);

/// What the routes work with.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) store: PgStore,
    pub(crate) progress: Progress,
    pub(crate) secrets: Secrets,
    pub(crate) stop: CancellationToken,
    pub(crate) configurations: Repository<JobConfiguration, PgStore>,
    pub(crate) jobs: Repository<Job, PgStore>,
    pub(crate) standing: Standing,
}

impl FromRef<Api> for Secrets {
    fn from_ref(api: &Api) -> Self {
        api.secrets.clone()
    }
}

/// All routes, and what the public ones look like.
pub(crate) fn routes(api: Api) -> (Router, OpenApi) {
    let (public, openapi) = OpenApiRouter::new()
        .routes(routes!(job_configurations::define_job_configuration, job_configurations::list_job_configurations))
        .routes(routes!(
            job_configurations::get_job_configuration,
            job_configurations::revise_job_configuration,
            job_configurations::retire_job_configuration
        ))
        .routes(routes!(job_commands::create_job, job_queries::list_jobs))
        .routes(routes!(job_queries::get_job))
        .routes(routes!(job_queries::list_job_outputs))
        .routes(routes!(job_commands::replace_job_files))
        .routes(routes!(job_commands::queue_job))
        .routes(routes!(job_commands::cancel_job))
        .split_for_parts();
    let internal = Router::new()
        .route("/internal/v1/job/claims", post(machines::claim))
        .route("/internal/v1/job/jobs/{job}/started", post(machines::started))
        .route("/internal/v1/job/jobs/{job}/heartbeat", post(machines::heartbeat))
        .route("/internal/v1/job/jobs/{job}/finished", post(machines::finished));
    (public.merge(internal).layer(server::bounded()).with_state(api), openapi)
}

/// An aggregate that belongs to an organization.
trait Owned: Aggregate {
    /// The read model of it.
    const READ_MODEL: &'static str;

    /// Whose it is; `None` when it doesn't exist.
    fn owner(&self) -> Option<Uuid>;
}

impl Owned for Job {
    const READ_MODEL: &'static str = crate::projections::jobs::NAME;

    fn owner(&self) -> Option<Uuid> {
        self.organization()
    }
}

impl Owned for JobConfiguration {
    const READ_MODEL: &'static str = crate::projections::job_configurations::NAME;

    fn owner(&self) -> Option<Uuid> {
        self.organization()
    }
}

fn not_found<A: Owned>(id: Uuid) -> Problem {
    let kind = A::NAME.replace('_', " ");
    Problem::not_found(format!("{kind} {id} does not exist"))
}

/// Checks that `organization` has aggregate `id`, before anything else is said about it.
async fn require_owned<A: Owned>(
    repository: &Repository<A, PgStore>,
    organization: Uuid,
    id: Uuid,
) -> Result<(), Problem> {
    let found = owner(repository, id).await?;
    if found == Some(organization) { Ok(()) } else { Err(not_found::<A>(id)) }
}

/// Whose aggregate `id` is; `None` when it doesn't exist.
async fn owner<A: Owned>(repository: &Repository<A, PgStore>, id: Uuid) -> Result<Option<Uuid>, StoreError> {
    // The owner never changes, so an old state will do.
    match repository.cached(id).state.owner() {
        Some(owner) => Ok(Some(owner)),
        None => Ok(repository.load(id).await?.state.owner()),
    }
}

/// Waits until the read model has come to the version that the client asks for.
async fn wait_for_version<A: Owned>(
    progress: &Progress,
    repository: &Repository<A, PgStore>,
    organization: Uuid,
    id: Uuid,
    min_version: MinVersion,
) -> Result<(), Problem> {
    let Some(wanted) = min_version.version() else { return Ok(()) };
    let stream = StreamKey { aggregate: A::NAME.into(), id };
    match progress.wait_for(A::READ_MODEL, &stream, wanted, VERSION_LIMIT).await {
        Ok(()) => Ok(()),
        Err(WaitError::NotReached { wanted, reached, .. }) => {
            require_owned(repository, organization, id).await?;
            Err(min_version::not_reached(wanted, reached))
        }
        Err(WaitError::Store(error)) => Err(error.into()),
    }
}

/// The answer of a request that came before under the same key, if there is one, or else `refusal`: what was checked
/// outside the aggregate may have changed since.
async fn first_answer_or(store: &PgStore, context: &CommandContext, refusal: Problem) -> Result<Executed, Problem> {
    let Some(idempotency) = &context.idempotency else { return Err(refusal) };
    match store.find_command(context.command_id, &idempotency.fingerprint).await? {
        Some(FoundCommand::Same(record)) => {
            Ok(Executed { aggregate_id: record.aggregate_id, version: record.version, appended: 0, repeated: true })
        }
        Some(FoundCommand::Other) | None => Err(refusal),
    }
}

/// A version as a read model stores it.
fn version(number: i64) -> Version {
    Version::new(u64::try_from(number).unwrap_or_default())
}

/// How many rows to ask for, so that a page of `limit` knows whether there is more.
fn rows_for(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)
}
