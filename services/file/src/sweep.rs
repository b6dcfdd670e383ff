//! The sweep: deletes part objects that no file has recorded.
//!
//! A process that stops between storing and recording a part leaves such an object. The sweep deletes objects older
//! than a day: no request that could still record them runs that long. It reads the recorded parts from the file's
//! stream, because a read model may be older.

use std::{collections::HashSet, time::Duration};

use epoch::{Repository, Timestamp, store::StoreError};
use epoch_postgres::PgStore;
use futures::TryStreamExt;
use service_host::service::ServiceError;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    domain::file::File,
    storage::{PartStore, StorageError},
};

/// Pause between two sweeps.
const INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Minimum age of a deleted object.
const MIN_AGE_MILLIS: i64 = 24 * 60 * 60 * 1000;

/// Failure of a sweep.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The part storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The event store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Sweeps at once and then every [`INTERVAL`], until `stop`.
pub(crate) async fn run(
    files: Repository<File, PgStore>,
    parts: PartStore,
    stop: CancellationToken,
) -> Result<(), ServiceError> {
    loop {
        let before = Timestamp::from_millis(Timestamp::now().as_millis() - MIN_AGE_MILLIS);
        let Some(result) = stop.run_until_cancelled(sweep(&files, &parts, before)).await else { return Ok(()) };
        let deleted = result.map_err(ServiceError::failed)?;
        if deleted > 0 {
            tracing::info!(deleted, "deleted unrecorded parts");
        }
        if stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none() {
            return Ok(());
        }
    }
}

/// Deletes unrecorded objects last modified before `before`. Returns the number of deleted objects.
///
/// # Errors
/// [`SweepError`] when a store fails.
pub async fn sweep(
    files: &Repository<File, PgStore>,
    parts: &PartStore,
    before: Timestamp,
) -> Result<usize, SweepError> {
    let mut deleted = parts.delete_incomplete(before).await?;
    // The list is ordered by file, so only the parts of one file are in memory.
    let mut current: Option<(Uuid, HashSet<Uuid>)> = None;
    let mut objects = parts.list();
    while let Some(object) = objects.try_next().await? {
        if object.modified >= before {
            continue;
        }
        let recorded = match &current {
            Some((file, recorded)) if *file == object.file => recorded,
            _ => {
                let state = files.load(object.file).await?.state;
                let recorded = state.parts.iter().map(|part| part.part_id).collect();
                &current.insert((object.file, recorded)).1
            }
        };
        if !recorded.contains(&object.part_id) {
            parts.delete(object.file, object.part_id).await?;
            deleted += 1;
        }
    }
    Ok(deleted)
}
