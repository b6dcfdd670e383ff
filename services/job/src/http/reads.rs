//! Helpers for reads from read models.

use epoch::{Repository, Version, envelope::StreamKey};
use epoch_postgres::{PgStore, Progress};
use http_kit::{Problem, min_version::MinVersion};
use uuid::Uuid;

use super::ownership::{OwnedAggregate, require_owned};

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
    let stream = StreamKey { aggregate: A::NAME.into(), id };
    if let Err(problem) = min_version.wait(progress, A::READ_MODEL, &stream).await {
        require_owned(repository, organization, id).await?;
        return Err(problem);
    }
    Ok(())
}

/// Converts the version of a read model row.
pub(super) fn version(number: i64) -> Version {
    Version::new(u64::try_from(number).unwrap_or_default())
}
