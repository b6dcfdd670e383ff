//! State that the HTTP handlers share.

use axum::extract::FromRef;
use epoch::{Aggregate, CommandContext, ExecutionOutcome, Repository, envelope::StreamKey};
use epoch_postgres::{PgStore, Progress, Projection, TransactionError};
use futures::FutureExt;
use http_kit::{Problem, Secrets, min_version::MinVersion};
use service_host::service::ServiceContext;
use sqlx::PgPool;
use uuid::Uuid;

use super::problem::organization_not_found;
use crate::{
    domain::{Organization, OrganizationCommand, OrganizationError},
    projections::Organizations,
    tables::users::{self, Person},
};

/// Event store, read model progress and secrets, as the handlers use them.
#[derive(Clone, FromRef)]
pub struct HttpState {
    pub(super) secrets: Secrets,
    pub(super) store: PgStore,
    progress: Progress,
    pub(super) organizations: Repository<Organization, PgStore>,
}

impl HttpState {
    /// Creates the state on the host's store and the given repository.
    #[must_use]
    pub fn new(host: &ServiceContext, organizations: Repository<Organization, PgStore>) -> Self {
        Self {
            secrets: host.secrets.clone(),
            store: host.store.clone(),
            progress: host.progress.clone(),
            organizations,
        }
    }

    pub(super) fn pool(&self) -> &PgPool {
        self.store.pool()
    }

    /// Waits until the read model has reached the requested version of the organization.
    ///
    /// # Errors
    /// As [`MinVersion::wait`].
    pub(super) async fn wait_for_version(&self, organization: Uuid, min: MinVersion) -> Result<(), Problem> {
        let stream = StreamKey { aggregate: Organization::NAME.into(), id: organization };
        min.wait(&self.progress, Organizations::NAME, &stream).await
    }

    /// Checks that the organization exists. Needed because operators pass the membership check for any id.
    ///
    /// # Errors
    /// 404 when it does not exist.
    pub(super) async fn require_exists(&self, organization: Uuid) -> Result<(), Problem> {
        let loaded = self.organizations.load(organization).await?;
        if loaded.state.exists() { Ok(()) } else { Err(organization_not_found(organization)) }
    }

    /// Executes a command about a person and registers the person as a user, in one transaction. Returns the user id
    /// with the result of the command.
    pub(super) async fn execute_for_person(
        &self,
        organization: Uuid,
        person: Person,
        context: CommandContext,
        command: impl Fn(Uuid) -> OrganizationCommand + Clone + Send + Sync + 'static,
    ) -> Result<(Uuid, ExecutionOutcome), Problem> {
        let organizations = self.organizations.clone();
        let committed = self.store.transaction(move |tx| {
            let (organizations, person) = (organizations.clone(), person.clone());
            let (context, command) = (context.clone(), command.clone());
            async move {
                let user_id = users::register(tx.connection(), &person, context.occurred_at).await?;
                let executed = tx.execute(&organizations, organization, &command(user_id), &context).await?;
                Ok::<_, TransactionError<OrganizationError>>((user_id, executed))
            }
            .boxed()
        });
        Ok(committed.await?)
    }
}
