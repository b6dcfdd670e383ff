//! Helpers for reads from read models.

use std::time::Duration;

use epoch::{Repository, Version, envelope::StreamKey};
use epoch_postgres::{PgStore, Progress, WaitError};
use http_kit::{
    Problem,
    min_version::{self, MinVersion},
};
use uuid::Uuid;

use super::ownership::{OwnedAggregate, require_owned};

/// Longest wait of a read for its `min_version`.
const VERSION_WAIT_LIMIT: Duration = Duration::from_secs(2);

/// Waits until the read model has reached `min_version`.
///
/// # Errors
/// 503 when the read model does not reach it within two seconds; 404 when the organization has no such aggregate.
pub(super) async fn wait_for_version<A: OwnedAggregate>(
    progress: &Progress,
    repository: &Repository<A, PgStore>,
    organization: Uuid,
    id: Uuid,
    min_version: MinVersion,
) -> Result<(), Problem> {
    let Some(required) = min_version.version() else { return Ok(()) };
    let stream = StreamKey { aggregate: A::NAME.into(), id };
    match progress.wait_for(A::READ_MODEL, &stream, required, VERSION_WAIT_LIMIT).await {
        Ok(()) => Ok(()),
        Err(WaitError::NotReached { wanted, reached, .. }) => {
            require_owned(repository, organization, id).await?;
            Err(min_version::not_reached(wanted, reached))
        }
        Err(WaitError::Store(error)) => Err(error.into()),
    }
}

/// Converts the version of a read model row.
pub(super) fn version(number: i64) -> Version {
    Version::new(u64::try_from(number).unwrap_or_default())
}
