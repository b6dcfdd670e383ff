//! Writer of one part object.
//!
//! A part has up to 64 MiB and arrives in chunks of any size, while object stores need few and large writes. The writer
//! buffers at most [`WRITE_BYTES`] and one chunk. It hashes exactly the written bytes, in order. The part becomes
//! visible with [`PartWriter::finish`], and is durable from then on.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, path::Path};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::error::StorageError;

/// Size of one write: the minimum of S3 for all but the last write of an object.
const WRITE_BYTES: usize = 5 * 1024 * 1024;

/// Durable part, not yet recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPart {
    pub part_id: Uuid,
    /// Size of the part.
    pub bytes: u64,
    pub sha256: [u8; 32],
}

/// Writer of one part.
#[derive(Debug)]
pub struct PartWriter {
    store: Arc<dyn ObjectStore>,
    path: Path,
    part_id: Uuid,
    /// Chunks are copied, because a chunk may keep a much larger buffer alive.
    buffer: BytesMut,
    /// `Some` for a part larger than one write.
    upload: Option<Box<dyn MultipartUpload>>,
    hasher: Sha256,
    bytes: u64,
}

impl PartWriter {
    pub(super) fn new(store: Arc<dyn ObjectStore>, path: Path, part_id: Uuid) -> Self {
        Self { store, path, part_id, buffer: BytesMut::new(), upload: None, hasher: Sha256::new(), bytes: 0 }
    }

    /// Returns the number of accepted bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Accepts the next bytes.
    ///
    /// # Errors
    /// [`StorageError`] when the store fails. [Discard](Self::discard) the part then.
    pub async fn write(&mut self, chunk: &Bytes) -> Result<(), StorageError> {
        self.hasher.update(chunk);
        self.bytes += chunk.len() as u64;
        self.buffer.extend_from_slice(chunk);
        if self.buffer.len() >= WRITE_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Makes the part durable and visible.
    ///
    /// # Errors
    /// [`StorageError`] when the store fails.
    pub async fn finish(mut self) -> Result<StoredPart, StorageError> {
        if self.upload.is_some() {
            self.flush().await?;
        }
        match &mut self.upload {
            Some(upload) => upload.complete().await?,
            None => self.store.put(&self.path, self.buffer.freeze().into()).await?,
        };
        Ok(StoredPart { part_id: self.part_id, bytes: self.bytes, sha256: self.hasher.finalize().into() })
    }

    /// Discards the part. A failure is logged: the sweep deletes the object later.
    pub async fn discard(self) {
        if let Some(mut upload) = self.upload
            && let Err(error) = upload.abort().await
        {
            tracing::warn!(%error, path = %self.path, "discarding a part failed");
        }
    }

    async fn flush(&mut self) -> Result<(), StorageError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let upload = match &mut self.upload {
            Some(upload) => upload,
            None => self.upload.insert(self.store.put_multipart(&self.path).await?),
        };
        upload.put_part(self.buffer.split().freeze().into()).await?;
        Ok(())
    }
}
