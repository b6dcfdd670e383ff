//! Storing a file that a program wrote.
//!
//! The problem: a connection breaks in the middle of a large file.
//! The invariant: an upload goes on from the offset that the file service says, never from the one we believe; it ends when
//! the whole file is stored, or when several attempts in a row brought nothing.

use std::{
    io::{self, SeekFrom},
    path::Path,
};

use epoch::retry::RetryPolicy;
use reqwest::{Body, StatusCode};
use service_kit::http_client::PeerError;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
};
use tokio_util::io::ReaderStream;
use uuid::Uuid;

use crate::{
    file_client::{FileService, NewFile},
    outputs::{Output, media_type},
    retry::{in_words, pause, until_answered},
};

/// The most bytes in one request, since the client ends a request whose answer hasn't begun after a minute.
const PART_BYTES: u64 = 64 * 1024 * 1024;

const CHUNK_BYTES: usize = 64 * 1024;

/// Why a file isn't stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    #[error("output {name:?} can't be read: {source}")]
    Unreadable { name: String, source: io::Error },
    #[error("output {name:?} can't be stored: {}", in_words(source))]
    Refused { name: String, source: PeerError },
    #[error("output {name:?} can't be stored: the upload makes no progress")]
    Stuck { name: String },
}

/// Stores `output` and gives the file's id. The same `key` again is the same file.
pub(crate) async fn upload(
    service: &FileService,
    output: &Output,
    key: &str,
    retries: RetryPolicy,
) -> Result<Uuid, UploadError> {
    let name = || output.name.clone();
    let refused = |source| UploadError::Refused { name: name(), source };
    let unreadable = |source| UploadError::Unreadable { name: name(), source };
    let bytes = tokio::fs::metadata(&output.path).await.map_err(unreadable)?.len();
    let file = NewFile { name: &output.name, media_type: media_type(&output.name), bytes };
    let upload = until_answered(retries, || service.create_upload(&file, key)).await.map_err(refused)?;
    let mut offset = 0;
    let mut failed = 0;
    while offset < bytes {
        let part_bytes = PART_BYTES.min(bytes - offset);
        let part = part(&output.path, offset, part_bytes).await.map_err(unreadable)?;
        let reached = match service.append(upload, offset, part_bytes, part).await {
            Ok(reached) => reached,
            Err(error) if can_go_on(&error) => {
                pause(retries, failed + 1, &error).await;
                until_answered(retries, || service.offset(upload)).await.map_err(refused)?
            }
            Err(error) => return Err(refused(error)),
        };
        failed = if reached > offset { 0 } else { failed + 1 };
        if failed >= retries.attempts {
            return Err(UploadError::Stuck { name: name() });
        }
        offset = reached;
    }
    Ok(upload)
}

/// A request that broke may still be written down when the next one comes: then the offset is another (409), or the upload
/// is busy (423).
fn can_go_on(error: &PeerError) -> bool {
    error.is_transient() || matches!(error.status(), Some(StatusCode::CONFLICT | StatusCode::LOCKED))
}

async fn part(path: &Path, offset: u64, bytes: u64) -> io::Result<Body> {
    let mut file = File::open(path).await?;
    file.seek(SeekFrom::Start(offset)).await?;
    Ok(Body::wrap_stream(ReaderStream::with_capacity(file.take(bytes), CHUNK_BYTES)))
}
