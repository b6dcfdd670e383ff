//! State that the HTTP handlers share.

use std::time::Duration;

use axum::extract::FromRef;
use epoch::{Aggregate, CommandContext, ExecutionOutcome, Repository, envelope::StreamKey};
use epoch_postgres::{PgStore, Progress, WaitError};
use futures::FutureExt;
use http_kit::{
    Problem, Secrets,
    min_version::{MinVersion, not_reached},
};
use service_host::service::ServiceContext;
use sqlx::PgPool;
use uuid::Uuid;

use super::{problem::organization_not_found, transaction_error::TransactionError};
use crate::{
    domain::{Organization, OrganizationCommand},
    projections::Organizations,
    tables::users::{self, Person},
};

/// Longest wait of a read for its `min_version`.
const MIN_VERSION_TIMEOUT: Duration = Duration::from_secs(2);

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

    /// Waits up to [`MIN_VERSION_TIMEOUT`] until the read model has reached the requested version of the organization.
    ///
    /// # Errors
    /// 503 when the read model is still older.
    pub(super) async fn wait_for_version(&self, organization: Uuid, min: MinVersion) -> Result<(), Problem> {
        let Some(expected) = min.version() else { return Ok(()) };
        let stream = StreamKey { aggregate: Organization::NAME.into(), id: organization };
        match self.progress.wait_for(Organizations::NAME, &stream, expected, MIN_VERSION_TIMEOUT).await {
            Ok(()) => Ok(()),
            Err(WaitError::NotReached { reached, .. }) => Err(not_reached(expected, reached)),
            Err(WaitError::Store(error)) => Err(error.into()),
        }
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
                Ok::<_, TransactionError>((user_id, executed))
            }
            .boxed()
        });
        Ok(committed.await?)
    }
}
