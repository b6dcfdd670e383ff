//! Receives request bodies as recorded parts.
//!
//! A body may be endless, break off anywhere, or lose a write conflict against another body for the same bytes. A part
//! is durable before it is recorded, and bytes that arrived before a break are kept. A rejected part is deleted; a part
//! whose recording has an unknown outcome is left to the [sweep](crate::sweep). A body longer than the declared size
//! never completes a file.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use epoch::{CommandContext, ExecuteError, Repository, Version};
use epoch_postgres::PgStore;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    domain::file::{File, FileCommand, FileError, RecordPart},
    storage::{PartStore, PartWriter, StorageError},
};

/// Upload that a body belongs to, and the caller who sends it.
#[derive(Debug, Clone)]
pub(crate) struct UploadTarget {
    pub(crate) file: Uuid,
    pub(crate) organization: Uuid,
    pub(crate) actor: String,
    pub(crate) trace_context: Option<Arc<str>>,
    /// Offset of the body's first byte in the file.
    pub(crate) offset: u64,
    /// Number of bytes that the upload still accepts.
    pub(crate) remaining: u64,
    /// Version of the upload before the body.
    pub(crate) version: Version,
}

/// Position of an upload after a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UploadPosition {
    pub(crate) offset: u64,
    pub(crate) version: Version,
}

/// Failure to receive a whole body.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// The aggregate rejected a part, or the event store failed.
    #[error(transparent)]
    Execute(#[from] ExecuteError<FileError>),
    /// A part could not be stored.
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("the body exceeds the declared size of the upload")]
    TooLong,
    /// The body broke off. The bytes before `offset` are kept.
    #[error("the body broke off; the upload is at offset {offset}")]
    Interrupted { offset: u64 },
    /// The process is shutting down. The bytes before `offset` are kept.
    #[error("the server is stopping; the upload is at offset {offset}")]
    Stopping { offset: u64 },
}

/// End of a body.
enum BodyEnd {
    Complete,
    Interrupted,
    Stopping,
}

/// Receives request bodies.
#[derive(Clone)]
pub(crate) struct BodyReceiver {
    files: Repository<File, PgStore>,
    parts: PartStore,
    stop: CancellationToken,
}

impl BodyReceiver {
    pub(crate) fn new(files: Repository<File, PgStore>, parts: PartStore, stop: CancellationToken) -> Self {
        Self { files, parts, stop }
    }

    /// Stores and records a body. Call it in a separate task: the server may drop the request of a disconnected client,
    /// and the received bytes must be recorded nevertheless.
    pub(crate) async fn receive(&self, target: UploadTarget, body: Body) -> Result<UploadPosition, ReceiveError> {
        let mut reception = Reception {
            position: UploadPosition { offset: target.offset, version: target.version },
            remaining: target.remaining,
            open_part: None,
            receiver: self,
            target,
        };
        match reception.read(body).await {
            Ok(end) => reception.finish(end).await,
            Err(error) => {
                if let Some(part) = reception.open_part.take() {
                    part.discard().await;
                }
                Err(error)
            }
        }
    }
}

/// One body on its way into parts.
struct Reception<'a> {
    receiver: &'a BodyReceiver,
    target: UploadTarget,
    /// Position after the last recorded part.
    position: UploadPosition,
    remaining: u64,
    open_part: Option<PartWriter>,
}

impl Reception<'_> {
    async fn read(&mut self, body: Body) -> Result<BodyEnd, ReceiveError> {
        let mut chunks = body.into_data_stream();
        loop {
            let chunk = match self.receiver.stop.run_until_cancelled(chunks.next()).await {
                None => return Ok(BodyEnd::Stopping),
                Some(None) => return Ok(BodyEnd::Complete),
                Some(Some(Err(error))) => {
                    tracing::debug!(%error, file = %self.target.file, "request body broke off");
                    return Ok(BodyEnd::Interrupted);
                }
                Some(Some(Ok(chunk))) => chunk,
            };
            self.remaining = self.remaining.checked_sub(chunk.len() as u64).ok_or(ReceiveError::TooLong)?;
            self.store(chunk).await?;
        }
    }

    /// Writes a chunk to one or more parts. A full part is recorded only when the next byte has arrived within the
    /// declared size: otherwise a body that is too long could complete the file with its last part.
    async fn store(&mut self, mut chunk: Bytes) -> Result<(), ReceiveError> {
        let part_bytes = self.receiver.parts.part_bytes();
        while !chunk.is_empty() {
            if let Some(full) = self.open_part.take_if(|part| part.bytes() >= part_bytes) {
                self.record(full).await?;
            }
            let part = self.open_part.get_or_insert_with(|| self.receiver.parts.create_part(self.target.file));
            let room = usize::try_from(part_bytes - part.bytes()).unwrap_or(usize::MAX);
            part.write(&chunk.split_to(room.min(chunk.len()))).await?;
        }
        Ok(())
    }

    async fn finish(mut self, end: BodyEnd) -> Result<UploadPosition, ReceiveError> {
        if let Some(part) = self.open_part.take() {
            self.record(part).await?;
        }
        let UploadPosition { offset, .. } = self.position;
        match end {
            BodyEnd::Complete => Ok(self.position),
            BodyEnd::Interrupted => Err(ReceiveError::Interrupted { offset }),
            BodyEnd::Stopping => Err(ReceiveError::Stopping { offset }),
        }
    }

    async fn record(&mut self, part: PartWriter) -> Result<(), ReceiveError> {
        let stored = part.finish().await?;
        let (file, offset) = (self.target.file, self.position.offset);
        let command = RecordPart { part_id: stored.part_id, offset, bytes: stored.bytes, sha256: stored.sha256 };
        let mut context = CommandContext::new().for_tenant(self.target.organization).by(self.target.actor.as_str());
        context.trace_context = self.target.trace_context.clone();
        match self.receiver.files.execute(file, &FileCommand::RecordPart(command), &context).await {
            Ok(executed) => {
                self.position = UploadPosition { offset: offset + stored.bytes, version: executed.version };
                Ok(())
            }
            Err(error) => {
                if is_certainly_unrecorded(&error)
                    && let Err(error) = self.receiver.parts.delete(file, stored.part_id).await
                {
                    tracing::warn!(%error, %file, part_id = %stored.part_id, "deletion of a rejected part failed");
                }
                Err(error.into())
            }
        }
    }
}

/// Returns whether the part has no record. After a store error the outcome is unknown, and the part may be recorded.
fn is_certainly_unrecorded(error: &ExecuteError<FileError>) -> bool {
    match error {
        ExecuteError::Rejected(_)
        | ExecuteError::Conflict { .. }
        | ExecuteError::Stale { .. }
        | ExecuteError::CommandReused { .. } => true,
        ExecuteError::Store(_) => false,
    }
}
