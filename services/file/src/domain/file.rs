//! The file aggregate, from the start of an upload to the deletion of the file.
//!
//! Several requests may send bytes of one upload at once, and a client may send bytes twice. A part is recorded only at
//! the offset where the previous part ended, so parts are gapless and do not overlap. The stored size is the sum of the
//! uploaded parts minus the discarded bytes. A completed file never changes.

use contracts::file::{
    AGGREGATE, FileDeleted, FileEvent, FilePartUploaded, FileUploadAborted, FileUploadCompleted, FileUploadStarted,
};
use epoch::Aggregate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::validation::{InvalidContentType, InvalidFileName, validate_content_type, validate_file_name};

/// Maximum size of a file: 5 TiB.
pub const MAX_BYTES: u64 = 5 << 40;

/// Maximum number of parts of a file. 5 TiB are 81,920 parts of 64 MiB, so only an upload in many small requests
/// reaches it.
pub const MAX_PARTS: usize = 100_000;

/// Commands of a file.
#[derive(Debug, Clone)]
pub enum FileCommand {
    /// Starts an upload.
    Start(StartUpload),
    /// Records a part whose bytes are stored.
    RecordPart(RecordPart),
    /// Aborts the upload.
    Abort,
    /// Deletes the completed file.
    Delete,
}

#[derive(Debug, Clone)]
pub struct StartUpload {
    /// Owner of the file.
    pub organization: Uuid,
    /// File name; surrounding whitespace is trimmed.
    pub name: String,
    /// Media type.
    pub content_type: String,
    /// Size of the complete file.
    pub declared_bytes: u64,
    /// Job that produces the file as an output.
    pub produced_by_job: Option<Uuid>,
}

/// Records a part whose bytes are stored.
#[derive(Debug, Clone)]
pub struct RecordPart {
    /// Recording the same part again changes nothing.
    pub part_id: Uuid,
    /// Offset of the part in the file.
    pub offset: u64,
    /// Size of the part.
    pub bytes: u64,
    pub sha256: [u8; 32],
}

/// Rejection of a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// The file was never started, or is aborted or deleted.
    #[error("the file does not exist")]
    NotFound,
    /// The id is in use.
    #[error("the upload has already started")]
    AlreadyStarted,
    #[error(transparent)]
    Name(#[from] InvalidFileName),
    #[error(transparent)]
    ContentType(#[from] InvalidContentType),
    #[error("a file has at most {MAX_BYTES} bytes")]
    TooLarge,
    /// The part does not start where the previous part ended.
    #[error("the upload is at offset {expected}")]
    OffsetMismatch {
        /// Offset at which the next part must start.
        expected: u64,
    },
    /// The part ends after the declared size.
    #[error("the body exceeds the declared size of {declared} bytes")]
    ExceedsDeclared { declared: u64 },
    #[error("a file has at most {MAX_PARTS} parts; send more bytes per request")]
    TooManyParts,
    #[error("the upload is complete; delete the file instead")]
    AlreadyComplete,
    #[error("the upload is not complete; abort it instead")]
    NotComplete,
}

/// State of an upload and its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Status {
    /// The upload has not started.
    #[default]
    Missing,
    /// The upload accepts parts.
    Uploading,
    /// All bytes are stored.
    Complete,
    Aborted,
    Deleted,
}

/// Recorded part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePart {
    /// Also names the part object in the store.
    pub part_id: Uuid,
    /// Offset of the part in the file.
    pub offset: u64,
    /// Size of the part.
    pub bytes: u64,
}

/// State of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct File {
    pub organization: Uuid,
    pub name: String,
    pub content_type: String,
    /// Declared size in bytes.
    pub declared: u64,
    pub status: Status,
    /// Stored bytes.
    pub received: u64,
    /// Stored parts, ordered by offset.
    pub parts: Vec<FilePart>,
}

impl File {
    /// Returns whether the file is uploading or complete.
    #[must_use]
    pub fn exists(&self) -> bool {
        matches!(self.status, Status::Uploading | Status::Complete)
    }

    /// Returns the number of missing bytes.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.declared.saturating_sub(self.received)
    }

    fn start(&self, command: &StartUpload) -> Result<Vec<FileEvent>, FileError> {
        if self.status != Status::Missing {
            return Err(FileError::AlreadyStarted);
        }
        if command.declared_bytes > MAX_BYTES {
            return Err(FileError::TooLarge);
        }
        let started = FileUploadStarted {
            organization_id: command.organization,
            name: validate_file_name(&command.name)?.to_owned(),
            content_type: validate_content_type(&command.content_type)?.to_owned(),
            declared_bytes: signed(command.declared_bytes),
            produced_by_job: command.produced_by_job,
        };
        let mut events = vec![started.into()];
        if command.declared_bytes == 0 {
            events.push(FileUploadCompleted { organization_id: command.organization, bytes: 0 }.into());
        }
        Ok(events)
    }

    fn record(&self, part: &RecordPart) -> Result<Vec<FileEvent>, FileError> {
        if !self.exists() {
            return Err(FileError::NotFound);
        }
        // A repeated part is usually one of the last, so the search starts at the end.
        let already_recorded = self.parts.iter().rev().any(|recorded| recorded.part_id == part.part_id);
        if already_recorded {
            return Ok(Vec::new());
        }
        if part.offset != self.received {
            return Err(FileError::OffsetMismatch { expected: self.received });
        }
        if part.bytes > self.remaining() {
            return Err(FileError::ExceedsDeclared { declared: self.declared });
        }
        if part.bytes == 0 {
            return Ok(Vec::new());
        }
        if self.parts.len() >= MAX_PARTS {
            return Err(FileError::TooManyParts);
        }
        let organization_id = self.organization;
        let uploaded = FilePartUploaded {
            organization_id,
            part_id: part.part_id,
            offset: signed(part.offset),
            bytes: signed(part.bytes),
            sha256: hex::encode(part.sha256),
        };
        let mut events = vec![uploaded.into()];
        if part.bytes == self.remaining() {
            events.push(FileUploadCompleted { organization_id, bytes: signed(self.declared) }.into());
        }
        Ok(events)
    }

    fn abort(&self) -> Result<Vec<FileEvent>, FileError> {
        match self.status {
            Status::Missing | Status::Aborted | Status::Deleted => Err(FileError::NotFound),
            Status::Complete => Err(FileError::AlreadyComplete),
            Status::Uploading => {
                let organization_id = self.organization;
                Ok(vec![FileUploadAborted { organization_id, bytes: signed(self.received) }.into()])
            }
        }
    }

    fn delete(&self) -> Result<Vec<FileEvent>, FileError> {
        match self.status {
            Status::Missing | Status::Aborted | Status::Deleted => Err(FileError::NotFound),
            Status::Uploading => Err(FileError::NotComplete),
            Status::Complete => {
                let organization_id = self.organization;
                Ok(vec![FileDeleted { organization_id, bytes: signed(self.received) }.into()])
            }
        }
    }

    fn discard(&mut self, status: Status) {
        self.status = status;
        self.received = 0;
        self.parts = Vec::new();
    }
}

impl Aggregate for File {
    const NAME: &'static str = AGGREGATE;
    type Command = FileCommand;
    type Event = FileEvent;
    type Error = FileError;

    fn decide(&self, command: &FileCommand) -> Result<Vec<FileEvent>, FileError> {
        match command {
            FileCommand::Start(start) => self.start(start),
            FileCommand::RecordPart(part) => self.record(part),
            FileCommand::Abort => self.abort(),
            FileCommand::Delete => self.delete(),
        }
    }

    fn evolve(&mut self, event: &FileEvent) {
        match event {
            FileEvent::FileUploadStarted(started) => {
                self.organization = started.organization_id;
                self.name = started.name.clone();
                self.content_type = started.content_type.clone();
                self.declared = unsigned(started.declared_bytes);
                self.status = Status::Uploading;
            }
            FileEvent::FilePartUploaded(part) => {
                let (offset, bytes) = (unsigned(part.offset), unsigned(part.bytes));
                self.received = self.received.saturating_add(bytes);
                self.parts.push(FilePart { part_id: part.part_id, offset, bytes });
            }
            FileEvent::FileUploadCompleted(_) => self.status = Status::Complete,
            FileEvent::FileUploadAborted(_) => self.discard(Status::Aborted),
            FileEvent::FileDeleted(_) => self.discard(Status::Deleted),
        }
    }
}

/// Converts a size to its type in events. Callers have checked it against [`MAX_BYTES`].
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Converts a size of an event, which is never negative.
fn unsigned(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or_default()
}
