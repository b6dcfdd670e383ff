//! Bringing a job's input files to where its program runs.
//!
//! The problem: files are large, their names are strangers', and a connection may break in the middle.
//! The invariant: the program starts only when every file is there whole, each under a name of its own.

use std::{collections::HashSet, io, path::Path};

use epoch::retry::RetryPolicy;
use futures::StreamExt;
use service_kit::http_client::PeerError;
use tokio::{fs, io::AsyncWriteExt};
use uuid::Uuid;

use crate::{
    file_client::FileService,
    input_name::input_name,
    retry::{in_words, pause, until_answered},
};

/// Why a file isn't there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StagingError {
    #[error("input file {file} can't be read: {}", in_words(source))]
    Unreadable { file: Uuid, source: PeerError },
    #[error("input file {file} can't be written: {source}")]
    Unwritable { file: Uuid, source: io::Error },
}

/// Writes each of `files` into the directory `inputs`.
pub(crate) async fn stage(
    service: &FileService,
    files: &[Uuid],
    inputs: &Path,
    retries: RetryPolicy,
) -> Result<(), StagingError> {
    let mut taken = HashSet::new();
    for &file in files {
        let unreadable = |source| StagingError::Unreadable { file, source };
        until_answered(retries, || service.require(file)).await.map_err(unreadable)?;
        let name = until_answered(retries, || service.name(file)).await.map_err(unreadable)?;
        let name = input_name(&name, &taken);
        download(service, file, &inputs.join(&name), retries).await?;
        taken.insert(name);
    }
    Ok(())
}

async fn download(service: &FileService, file: Uuid, path: &Path, retries: RetryPolicy) -> Result<(), StagingError> {
    let mut failed = 0;
    loop {
        let error = match download_once(service, file, path).await {
            Ok(()) => return Ok(()),
            Err(StagingError::Unreadable { source, .. }) if source.is_transient() => source,
            Err(error) => return Err(error),
        };
        failed += 1;
        if failed >= retries.attempts {
            return Err(StagingError::Unreadable { file, source: error });
        }
        pause(retries, failed, &error).await;
    }
}

/// A body that ends early is an error of the connection, so what is written without one is whole.
async fn download_once(service: &FileService, file: Uuid, path: &Path) -> Result<(), StagingError> {
    let unwritable = |source| StagingError::Unwritable { file, source };
    let response = service.content(file).await.map_err(|source| StagingError::Unreadable { file, source })?;
    let url = response.url().clone();
    let mut chunks = response.bytes_stream();
    let mut target = fs::File::create(path).await.map_err(unwritable)?;
    while let Some(chunk) = chunks.next().await {
        let broken =
            |source| StagingError::Unreadable { file, source: PeerError::NoAnswer { url: url.clone(), source } };
        target.write_all(&chunk.map_err(broken)?).await.map_err(unwritable)?;
    }
    target.flush().await.map_err(unwritable)
}
