//! From a request's body to recorded parts.
//!
//! The problem: a body may be endless, break off anywhere, or lose a race against another body for the same bytes.
//!
//! The invariant: what arrived before a break is kept; a part is durable before it is recorded; a part that was refused is
//! deleted, and one whose recording is in doubt is left to the [sweep](crate::sweep). A body that goes on beyond the
//! declared end never completes a file.

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

/// Which upload a body is for, and who sends it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) file: Uuid,
    pub(crate) organization: Uuid,
    pub(crate) actor: String,
    pub(crate) trace_context: Option<Arc<str>>,
    /// Where the body's first byte belongs.
    pub(crate) offset: u64,
    /// How many bytes the upload still takes.
    pub(crate) left: u64,
    /// The upload's version before the body.
    pub(crate) version: Version,
}

/// How far the upload is after a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) offset: u64,
    pub(crate) version: Version,
}

/// Why a body was not taken to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// The file doesn't take the part, or the event store gave no answer.
    #[error(transparent)]
    Execute(#[from] ExecuteError<FileError>),
    /// The bytes can't be stored.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The body goes on beyond the upload's declared end.
    #[error("the body goes on beyond the upload's declared length")]
    TooLong,
    /// The body broke off; what came before is kept.
    #[error("the body broke off; the upload is at offset {offset}")]
    BrokenOff { offset: u64 },
    /// This process is to end; what came before is kept.
    #[error("the server is stopping; the upload is at offset {offset}")]
    Stopping { offset: u64 },
}

/// How a body ended.
enum End {
    Complete,
    BrokenOff,
    Stopping,
}

/// Takes bodies.
#[derive(Clone)]
pub(crate) struct Receiver {
    files: Repository<File, PgStore>,
    parts: PartStore,
    stop: CancellationToken,
}

impl Receiver {
    pub(crate) fn new(files: Repository<File, PgStore>, parts: PartStore, stop: CancellationToken) -> Self {
        Self { files, parts, stop }
    }

    /// Stores and records a body. Run it in a task of its own: a server may drop a request whose client is gone, but what it
    /// brought is to be kept.
    pub(crate) async fn receive(&self, target: Target, body: Body) -> Result<Received, ReceiveError> {
        let mut receiving = Receiving {
            received: Received { offset: target.offset, version: target.version },
            left: target.left,
            open: None,
            receiver: self,
            target,
        };
        match receiving.take(body).await {
            Ok(end) => receiving.finish(end).await,
            Err(error) => {
                if let Some(part) = receiving.open.take() {
                    part.discard().await;
                }
                Err(error)
            }
        }
    }
}

struct Receiving<'a> {
    receiver: &'a Receiver,
    target: Target,
    received: Received,
    left: u64,
    open: Option<PartWriter>,
}

impl Receiving<'_> {
    async fn take(&mut self, body: Body) -> Result<End, ReceiveError> {
        let mut chunks = body.into_data_stream();
        loop {
            let chunk = match self.receiver.stop.run_until_cancelled(chunks.next()).await {
                None => return Ok(End::Stopping),
                Some(None) => return Ok(End::Complete),
                Some(Some(Err(error))) => {
                    tracing::debug!(%error, file = %self.target.file, "a body broke off");
                    return Ok(End::BrokenOff);
                }
                Some(Some(Ok(chunk))) => chunk,
            };
            self.left = self.left.checked_sub(chunk.len() as u64).ok_or(ReceiveError::TooLong)?;
            self.store(chunk).await?;
        }
    }

    /// Puts a chunk into one or more parts. A full part is only recorded once it is known that the next byte is right.
    async fn store(&mut self, mut chunk: Bytes) -> Result<(), ReceiveError> {
        let part_bytes = self.receiver.parts.part_bytes();
        while !chunk.is_empty() {
            if let Some(full) = self.open.take_if(|part| part.bytes() >= part_bytes) {
                self.record(full).await?;
            }
            let part = self.open.get_or_insert_with(|| self.receiver.parts.begin(self.target.file));
            let room = usize::try_from(part_bytes - part.bytes()).unwrap_or(usize::MAX);
            part.write(&chunk.split_to(room.min(chunk.len()))).await?;
        }
        Ok(())
    }

    async fn finish(mut self, end: End) -> Result<Received, ReceiveError> {
        if let Some(part) = self.open.take() {
            self.record(part).await?;
        }
        let Received { offset, .. } = self.received;
        match end {
            End::Complete => Ok(self.received),
            End::BrokenOff => Err(ReceiveError::BrokenOff { offset }),
            End::Stopping => Err(ReceiveError::Stopping { offset }),
        }
    }

    async fn record(&mut self, part: PartWriter) -> Result<(), ReceiveError> {
        let stored = part.finish().await?;
        let (file, offset) = (self.target.file, self.received.offset);
        let command = RecordPart { part_id: stored.part_id, offset, bytes: stored.bytes, sha256: stored.sha256 };
        let mut context = CommandContext::new().for_tenant(self.target.organization).by(self.target.actor.as_str());
        context.trace_context = self.target.trace_context.clone();
        match self.receiver.files.execute(file, &FileCommand::RecordPart(command), &context).await {
            Ok(executed) => {
                self.received = Received { offset: offset + stored.bytes, version: executed.version };
                Ok(())
            }
            Err(error) => {
                if is_certainly_not_recorded(&error)
                    && let Err(error) = self.receiver.parts.delete(file, stored.part_id).await
                {
                    tracing::warn!(%error, %file, part_id = %stored.part_id, "a refused part is left to the sweep");
                }
                Err(error.into())
            }
        }
    }
}

/// When the store gave no answer, the part may have been recorded all the same.
fn is_certainly_not_recorded(error: &ExecuteError<FileError>) -> bool {
    match error {
        ExecuteError::Rejected(_)
        | ExecuteError::Conflict { .. }
        | ExecuteError::Stale { .. }
        | ExecuteError::CommandReused { .. } => true,
        ExecuteError::Store(_) => false,
    }
}
