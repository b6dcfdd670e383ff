//! Uploads output files.
//!
//! Connections break in the middle of large files. An interrupted upload resumes at the offset that the file service
//! reports, never at a local guess. It ends when the whole file is stored, or after several requests without progress.

use std::{
    io::{self, SeekFrom},
    path::Path,
};

use epoch::retry::RetryPolicy;
use reqwest::{Body, StatusCode};
use service_host::peer::PeerError;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
};
use tokio_util::io::ReaderStream;
use uuid::Uuid;

use crate::{
    file_client::{FileClient, NewFile},
    outputs::{Output, media_type},
    retry::{public_cause, retry_transient, wait_before_retry},
};

/// Maximum size of one request. The HTTP client aborts a request without a response after one minute.
const PART_BYTES: u64 = 64 * 1024 * 1024;

const CHUNK_BYTES: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    #[error("output {name:?} could not be read: {source}")]
    Unreadable { name: String, source: io::Error },
    #[error("output {name:?} could not be stored: {}", public_cause(source))]
    Refused { name: String, source: PeerError },
    #[error("output {name:?} could not be stored: the upload makes no progress")]
    Stuck { name: String },
}

/// Uploads `output` and returns the id of the file. A repeated call with the same `key` returns the same file.
pub(crate) async fn upload_output(
    files: &FileClient,
    output: &Output,
    key: &str,
    retries: RetryPolicy,
) -> Result<Uuid, UploadError> {
    let name = || output.name.clone();
    let refused = |source| UploadError::Refused { name: name(), source };
    let unreadable = |source| UploadError::Unreadable { name: name(), source };
    let bytes = tokio::fs::metadata(&output.path).await.map_err(unreadable)?.len();
    let file = NewFile { name: &output.name, media_type: media_type(&output.name), bytes };
    let upload = retry_transient(retries, || files.create_upload(&file, key)).await.map_err(refused)?;
    let mut offset = 0;
    let mut failed = 0;
    while offset < bytes {
        let part_bytes = PART_BYTES.min(bytes - offset);
        let part = read_part(&output.path, offset, part_bytes).await.map_err(unreadable)?;
        let new_offset = match files.append(upload, offset, part_bytes, part).await {
            Ok(offset) => offset,
            Err(error) if can_resume(&error) => {
                wait_before_retry(retries, failed + 1, &error).await;
                retry_transient(retries, || files.offset(upload)).await.map_err(refused)?
            }
            Err(error) => return Err(refused(error)),
        };
        failed = if new_offset > offset { 0 } else { failed + 1 };
        if failed >= retries.attempts {
            return Err(UploadError::Stuck { name: name() });
        }
        offset = new_offset;
    }
    Ok(upload)
}

/// Returns whether the upload can resume after the error.
///
/// The file service may still be storing a broken request when the next one arrives. The offset then differs (409), or the
/// upload is locked (423).
fn can_resume(error: &PeerError) -> bool {
    error.is_transient() || matches!(error.status(), Some(StatusCode::CONFLICT | StatusCode::LOCKED))
}

async fn read_part(path: &Path, offset: u64, bytes: u64) -> io::Result<Body> {
    let mut file = File::open(path).await?;
    file.seek(SeekFrom::Start(offset)).await?;
    Ok(Body::wrap_stream(ReaderStream::with_capacity(file.take(bytes), CHUNK_BYTES)))
}
