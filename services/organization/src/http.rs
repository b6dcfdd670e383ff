//! The service's routes.
//!
//! The problem: an organization must not learn of another one, and nobody may do more than their role says.
//!
//! The invariant: a route of one organization asks first whether the caller is in it (404), then whether the caller's role is
//! enough (403), and only then looks at anything.

mod api_keys;
mod authenticate;
mod members;
mod organizations;
mod transaction_error;
mod validation;

use std::time::Duration;

use axum::{Router, extract::FromRef, routing::post};
use epoch::{Aggregate, CommandContext, Executed, Repository, envelope::StreamKey};
use epoch_postgres::{PgStore, Progress, WaitError};
use futures::FutureExt;
use service_kit::{
    Caller, Problem, Role, Secrets,
    min_version::{MinVersion, not_reached},
    server,
    service::Host,
};
use sqlx::PgPool;
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use self::{transaction_error::Failure, validation::does_not_exist};
use crate::{
    domain::{Organization, OrganizationCommand},
    projections::Organizations,
    tables::users::{self, Person},
};

/// How long a read waits for the version it asks for.
const MIN_VERSION_LIMIT: Duration = Duration::from_secs(2);

/// What the routes work with.
#[derive(Clone, FromRef)]
pub struct Api {
    secrets: Secrets,
    store: PgStore,
    progress: Progress,
    organizations: Repository<Organization, PgStore>,
}

impl Api {
    /// Routes that command these organizations.
    #[must_use]
    pub fn new(host: &Host, organizations: Repository<Organization, PgStore>) -> Self {
        Self {
            secrets: host.secrets.clone(),
            store: host.store.clone(),
            progress: host.progress.clone(),
            organizations,
        }
    }

    fn pool(&self) -> &PgPool {
        self.store.pool()
    }

    /// Waits until the read model has the version that the client has seen.
    async fn wait_for(&self, organization: Uuid, min: MinVersion) -> Result<(), Problem> {
        let Some(wanted) = min.version() else { return Ok(()) };
        let stream = StreamKey { aggregate: Organization::NAME.into(), id: organization };
        match self.progress.wait_for(Organizations::NAME, &stream, wanted, MIN_VERSION_LIMIT).await {
            Ok(()) => Ok(()),
            Err(WaitError::NotReached { reached, .. }) => Err(not_reached(wanted, reached)),
            Err(WaitError::Store(error)) => Err(error.into()),
        }
    }

    /// Operators are let into organizations that don't exist; here they learn that.
    async fn require_exists(&self, organization: Uuid) -> Result<(), Problem> {
        let loaded = self.organizations.load(organization).await?;
        if loaded.state.exists() { Ok(()) } else { Err(does_not_exist(organization)) }
    }

    /// Executes a command about a person, who becomes a user with it if they aren't one: both or neither. Gives the user's id too.
    async fn execute_for_person(
        &self,
        organization: Uuid,
        person: Person,
        context: CommandContext,
        command: impl Fn(Uuid) -> OrganizationCommand + Clone + Send + Sync + 'static,
    ) -> Result<(Uuid, Executed), Problem> {
        let organizations = self.organizations.clone();
        let committed = self.store.transaction(move |tx| {
            let (organizations, person) = (organizations.clone(), person.clone());
            let (context, command) = (context.clone(), command.clone());
            async move {
                let user_id = users::register(tx.connection(), &person, context.occurred_at).await?;
                let executed = tx.execute(&organizations, organization, &command(user_id), &context).await?;
                Ok::<_, Failure>((user_id, executed))
            }
            .boxed()
        });
        Ok(committed.await?)
    }
}

/// Checks that the caller may see the organization and has at least `role` in it.
fn require(caller: &Caller, organization: Uuid, role: Role) -> Result<(), Problem> {
    caller.in_organization(organization)?;
    caller.at_least(role)
}

/// The routes, and what those of them that can be reached from outside look like.
pub fn router(api: Api) -> (Router, OpenApi) {
    let public = OpenApiRouter::new()
        .routes(routes!(organizations::create, organizations::list))
        .routes(routes!(organizations::read, organizations::rename))
        .routes(routes!(members::add))
        .routes(routes!(members::change_role, members::remove))
        .routes(routes!(api_keys::create, api_keys::list))
        .routes(routes!(api_keys::revoke));
    let (public, openapi) = public.split_for_parts();
    let internal = Router::new().route("/internal/v1/organization/authenticate", post(authenticate::authenticate));
    (public.merge(internal).layer(server::bounded()).with_state(api), openapi)
}
