//! Writing one part.
//!
//! The problem: a part may have 64 MiB and come in chunks of any size; stores want few and large writes.
//!
//! The invariant: at most [`WRITE_BYTES`] and one chunk are in memory; what is hashed is what is written, in order; nothing
//! is visible before [`PartWriter::finish`], and after it the part is durable.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, path::Path};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::part_store::StorageError;

/// How much is written at once: the least that S3 takes in the middle of an object.
const WRITE_BYTES: usize = 5 * 1024 * 1024;

/// A part whose bytes are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPart {
    /// Names it.
    pub part_id: Uuid,
    /// Its size.
    pub bytes: u64,
    /// What its bytes hash to.
    pub sha256: [u8; 32],
}

/// Writes one part.
#[derive(Debug)]
pub struct PartWriter {
    store: Arc<dyn ObjectStore>,
    path: Path,
    part_id: Uuid,
    /// Chunks are copied here: a chunk may keep a much larger buffer alive.
    buffer: BytesMut,
    /// Only for parts larger than one write.
    upload: Option<Box<dyn MultipartUpload>>,
    hasher: Sha256,
    bytes: u64,
}

impl PartWriter {
    pub(super) fn new(store: Arc<dyn ObjectStore>, path: Path, part_id: Uuid) -> Self {
        Self { store, path, part_id, buffer: BytesMut::new(), upload: None, hasher: Sha256::new(), bytes: 0 }
    }

    /// How many bytes it has.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`StorageError`] when they can't be stored; then the part should be [discarded](Self::discard).
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
    /// [`StorageError`] when it can't be stored.
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

    /// Forgets the part.
    pub async fn discard(self) {
        if let Some(mut upload) = self.upload
            && let Err(error) = upload.abort().await
        {
            tracing::warn!(%error, path = %self.path, "a part can't be discarded");
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
