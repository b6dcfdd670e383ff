//! Downloads the input files of an attempt.
//!
//! Files are large, their names are untrusted, and connections break. The program starts only after all files are complete,
//! each under a unique name.

use std::{collections::HashSet, io, path::Path};

use epoch::retry::RetryPolicy;
use futures::StreamExt;
use service_host::peer::PeerError;
use tokio::{fs, io::AsyncWriteExt};
use uuid::Uuid;

use crate::{
    file_client::FileClient,
    input_name::input_name,
    retry::{public_cause, retry_transient, wait_before_retry},
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum StagingError {
    #[error("input file {file} could not be read: {}", public_cause(source))]
    Unreadable { file: Uuid, source: PeerError },
    #[error("input file {file} could not be written: {source}")]
    Unwritable { file: Uuid, source: io::Error },
}

/// Downloads all files into the directory `inputs`.
pub(crate) async fn stage_inputs(
    client: &FileClient,
    file_ids: &[Uuid],
    inputs: &Path,
    retries: RetryPolicy,
) -> Result<(), StagingError> {
    let mut taken = HashSet::new();
    for &file in file_ids {
        let unreadable = |source| StagingError::Unreadable { file, source };
        retry_transient(retries, || client.require_complete(file)).await.map_err(unreadable)?;
        let name = retry_transient(retries, || client.name(file)).await.map_err(unreadable)?;
        let name = input_name(&name, &taken);
        download(client, file, &inputs.join(&name), retries).await?;
        taken.insert(name);
    }
    Ok(())
}

async fn download(client: &FileClient, file: Uuid, path: &Path, retries: RetryPolicy) -> Result<(), StagingError> {
    let mut failed = 0;
    loop {
        let error = match download_once(client, file, path).await {
            Ok(()) => return Ok(()),
            Err(StagingError::Unreadable { source, .. }) if source.is_transient() => source,
            Err(error) => return Err(error),
        };
        failed += 1;
        if failed >= retries.attempts {
            return Err(StagingError::Unreadable { file, source: error });
        }
        wait_before_retry(retries, failed, &error).await;
    }
}

/// Downloads a file in one request. A body that ends early is a connection error, so a download without error is complete.
async fn download_once(client: &FileClient, file: Uuid, path: &Path) -> Result<(), StagingError> {
    let unwritable = |source| StagingError::Unwritable { file, source };
    let response = client.content(file).await.map_err(|source| StagingError::Unreadable { file, source })?;
    let url = response.url().clone();
    let mut chunks = response.bytes_stream();
    let mut target = fs::File::create(path).await.map_err(unwritable)?;
    while let Some(chunk) = chunks.next().await {
        let connection_error =
            |source| StagingError::Unreadable { file, source: PeerError::NoResponse { url: url.clone(), source } };
        target.write_all(&chunk.map_err(connection_error)?).await.map_err(unwritable)?;
    }
    target.flush().await.map_err(unwritable)
}
