//! Ownership checks of aggregates.
//!
//! An aggregate of another organization gets the same 404 as one that does not exist, so that ids reveal nothing.

use epoch::{Aggregate, Repository, store::StoreError};
use epoch_postgres::{PgStore, Projection};
use http_kit::{
    Problem,
    access::{does_not_exist, require_owner},
};
use uuid::Uuid;

use crate::{
    domain::{job::Job, job_configuration::JobConfiguration},
    projections::{job_configurations::JobConfigurations, jobs::Jobs},
};

/// An aggregate that belongs to an organization.
pub(super) trait OwnedAggregate: Aggregate {
    /// Subscription of the aggregate's read model.
    const READ_MODEL: &'static str;

    /// Returns the owning organization, or `None` when the aggregate does not exist.
    fn owner(&self) -> Option<Uuid>;
}

impl OwnedAggregate for Job {
    const READ_MODEL: &'static str = Jobs::NAME;

    fn owner(&self) -> Option<Uuid> {
        self.organization()
    }
}

impl OwnedAggregate for JobConfiguration {
    const READ_MODEL: &'static str = JobConfigurations::NAME;

    fn owner(&self) -> Option<Uuid> {
        self.organization()
    }
}

/// Returns the 404 problem of an aggregate.
pub(super) fn not_found<A: OwnedAggregate>(id: Uuid) -> Problem {
    does_not_exist(&kind::<A>(), id)
}

/// Checks that `organization` owns the aggregate `id`. Call it before any check that reveals its state.
///
/// # Errors
/// 404 when the aggregate does not exist or belongs to another organization.
pub(super) async fn require_owned<A: OwnedAggregate>(
    repository: &Repository<A, PgStore>,
    organization: Uuid,
    id: Uuid,
) -> Result<(), Problem> {
    let owner = find_owner(repository, id).await?;
    require_owner(organization, owner, &kind::<A>(), id)
}

/// Returns the name of the aggregate in problems, e.g. `job configuration`.
fn kind<A: OwnedAggregate>() -> String {
    A::NAME.replace('_', " ")
}

/// Returns the owner of the aggregate `id`, or `None` when it does not exist.
pub(super) async fn find_owner<A: OwnedAggregate>(
    repository: &Repository<A, PgStore>,
    id: Uuid,
) -> Result<Option<Uuid>, StoreError> {
    // The owner never changes, so a stale cached state is good enough.
    match repository.cached(id).state.owner() {
        Some(owner) => Ok(Some(owner)),
        None => Ok(repository.load(id).await?.state.owner()),
    }
}
