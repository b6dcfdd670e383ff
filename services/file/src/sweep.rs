//! Deletes part objects that nobody recorded.
//!
//! The problem: a process that dies between storing a part and recording it leaves an object behind that no file has.
//!
//! The invariant: only what is older than a day goes, long after any request that could still record it; what a file has
//! recorded stays. That a file has recorded a part is read from its stream, not from a read model.

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

/// How often to look.
const INTERVAL: Duration = Duration::from_secs(60 * 60);

/// How old what goes is at least.
const AGE_MILLIS: i64 = 24 * 60 * 60 * 1000;

/// Why it stopped in the middle.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The storage of parts gave no answer.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The event store gave no answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Sweeps now and every hour, until it is to stop.
pub(crate) async fn run(
    files: Repository<File, PgStore>,
    parts: PartStore,
    stop: CancellationToken,
) -> Result<(), ServiceError> {
    loop {
        let before = Timestamp::from_millis(Timestamp::now().as_millis() - AGE_MILLIS);
        let Some(swept) = stop.run_until_cancelled(sweep(&files, &parts, before)).await else { return Ok(()) };
        let deleted = swept.map_err(ServiceError::failed)?;
        if deleted > 0 {
            tracing::info!(deleted, "swept parts that nobody recorded");
        }
        if stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none() {
            return Ok(());
        }
    }
}

/// Deletes what nobody recorded and nobody has written to since `before`; says how many objects that were.
///
/// # Errors
/// [`SweepError`] when a store gives no answer.
pub async fn sweep(
    files: &Repository<File, PgStore>,
    parts: &PartStore,
    before: Timestamp,
) -> Result<usize, SweepError> {
    let mut deleted = parts.delete_half_written(before).await?;
    // Objects come file by file, so one file's parts in memory are enough.
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
