//! A file, from the start of its upload to its end.
//!
//! The problem: several requests may bring bytes for one upload at once, and some come twice.
//!
//! The invariant: parts join without gap or overlap, since a part is only recorded where the last one ended; what was
//! uploaded, less what was discarded, is what is stored; a complete file never changes.

use contracts::file::{
    AGGREGATE, FileDeleted, FileEvent, FilePartUploaded, FileUploadAborted, FileUploadCompleted, FileUploadStarted,
};
use epoch::Aggregate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::validation::{BadContentType, BadName, content_type, file_name};

/// The largest file: 5 TiB.
pub const MAX_BYTES: u64 = 5 << 40;

/// The most parts of a file. 5 TiB are 81,920 parts of 64 MiB, so only uploads in many small pieces meet it.
pub const MAX_PARTS: usize = 100_000;

/// What a file can be asked to do.
#[derive(Debug, Clone)]
pub enum FileCommand {
    /// Begin an upload.
    Start(StartUpload),
    /// Take over a part whose bytes are stored.
    RecordPart(RecordPart),
    /// Give up the upload.
    Abort,
    /// Delete the complete file.
    Delete,
}

/// Begins an upload.
#[derive(Debug, Clone)]
pub struct StartUpload {
    /// Who owns the file.
    pub organization: Uuid,
    /// Its name; spaces around it are dropped.
    pub name: String,
    /// Its media type.
    pub content_type: String,
    /// How large it will be.
    pub declared_bytes: u64,
    /// The job it is an output of.
    pub produced_by_job: Option<Uuid>,
}

/// Takes over a part whose bytes are stored.
#[derive(Debug, Clone)]
pub struct RecordPart {
    /// Names the part; the same part again changes nothing.
    pub part_id: Uuid,
    /// Where it begins in the file.
    pub offset: u64,
    /// Its size.
    pub bytes: u64,
    /// What its bytes hash to.
    pub sha256: [u8; 32],
}

/// Why a file says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It never was, or is no more.
    #[error("the file does not exist")]
    NotFound,
    /// Its id is taken.
    #[error("the upload has already begun")]
    AlreadyStarted,
    /// It can't be called that.
    #[error(transparent)]
    Name(#[from] BadName),
    /// It can't be of that type.
    #[error(transparent)]
    ContentType(#[from] BadContentType),
    /// It would be larger than any file may be.
    #[error("a file can have {MAX_BYTES} bytes at most")]
    TooLarge,
    /// The part doesn't begin where the last one ended.
    #[error("the upload is at offset {expected}")]
    OffsetMismatch {
        /// Where the next part must begin.
        expected: u64,
    },
    /// The part goes beyond the declared end.
    #[error("the upload was declared to have {declared} bytes, this would be more")]
    ExceedsDeclared {
        /// The declared size.
        declared: u64,
    },
    /// The upload came in too many pieces.
    #[error("a file can have {MAX_PARTS} parts at most; send more bytes at once")]
    TooManyParts,
    /// It is complete, so there is nothing to give up.
    #[error("the upload is complete; delete the file instead")]
    AlreadyComplete,
    /// It isn't complete, so there is nothing to delete.
    #[error("the upload is not complete; abort it instead")]
    NotComplete,
}

/// How far a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Status {
    /// Not there.
    #[default]
    Missing,
    /// Taking parts.
    Uploading,
    /// All there.
    Complete,
    /// Given up.
    Aborted,
    /// Deleted.
    Deleted,
}

/// A recorded part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Names the part and its object.
    pub part_id: Uuid,
    /// Where it begins in the file.
    pub offset: u64,
    /// Its size.
    pub bytes: u64,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct File {
    /// Who owns it.
    pub organization: Uuid,
    /// Its name.
    pub name: String,
    /// Its media type.
    pub content_type: String,
    /// How large it is to be.
    pub declared: u64,
    /// How far it is.
    pub status: Status,
    /// How many bytes are stored.
    pub received: u64,
    /// What is stored, in the file's order.
    pub parts: Vec<Part>,
}

impl File {
    /// Whether it is there: being uploaded, or complete.
    #[must_use]
    pub fn exists(&self) -> bool {
        matches!(self.status, Status::Uploading | Status::Complete)
    }

    /// How many bytes are still to come.
    #[must_use]
    pub fn left(&self) -> u64 {
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
            name: file_name(&command.name)?.to_owned(),
            content_type: content_type(&command.content_type)?.to_owned(),
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
        // A repeated part is one of the last.
        let recorded_before = self.parts.iter().rev().any(|recorded| recorded.part_id == part.part_id);
        if recorded_before {
            return Ok(Vec::new());
        }
        if part.offset != self.received {
            return Err(FileError::OffsetMismatch { expected: self.received });
        }
        if part.bytes > self.left() {
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
        if part.bytes == self.left() {
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
                self.parts.push(Part { part_id: part.part_id, offset, bytes });
            }
            FileEvent::FileUploadCompleted(_) => self.status = Status::Complete,
            FileEvent::FileUploadAborted(_) => self.discard(Status::Aborted),
            FileEvent::FileDeleted(_) => self.discard(Status::Deleted),
        }
    }
}

/// A size as events have it. Sizes are checked against [`MAX_BYTES`] before.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A size from an event; none was ever negative.
fn unsigned(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or_default()
}
