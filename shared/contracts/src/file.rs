//! What happens to a file.
//!
//! The problem: storage is paid for by the byte and the millisecond, also for uploads that were never finished.
//!
//! The invariant: each event that changes how much is stored says by how many bytes; a complete file never changes.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The aggregate's name.
pub const AGGREGATE: &str = "file";

epoch::events! {
    /// What happens to a file.
    pub enum FileEvent {
        FileUploadStarted = [schema!("file/FileUploadStarted")],
        FilePartUploaded = [schema!("file/FilePartUploaded")],
        FileUploadCompleted = [schema!("file/FileUploadCompleted")],
        FileUploadAborted = [schema!("file/FileUploadAborted")],
        FileDeleted = [schema!("file/FileDeleted")],
    }
}

/// Somebody began to upload a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileUploadStarted {
    /// The organization that owns the file.
    pub organization_id: Uuid,
    /// The file's name.
    pub name: String,
    /// The media type the uploader declared.
    pub content_type: String,
    /// The size the uploader declared, in bytes.
    pub declared_bytes: i64,
    /// The job that the file is an output of; `None` when a client uploads it.
    pub produced_by_job: Option<Uuid>,
}

/// A part of a file is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePartUploaded {
    /// The organization that owns the file.
    pub organization_id: Uuid,
    /// Names the part.
    pub part_id: Uuid,
    /// Where the part begins in the file, in bytes from 0.
    pub offset: i64,
    /// The part's size, in bytes.
    pub bytes: i64,
    /// The SHA-256 of the part, as 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// All of a file is stored; it can be read, and never changes again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileUploadCompleted {
    /// The organization that owns the file.
    pub organization_id: Uuid,
    /// The whole file's size, in bytes.
    pub bytes: i64,
}

/// An upload was given up; what had been stored is discarded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileUploadAborted {
    /// The organization that owns the file.
    pub organization_id: Uuid,
    /// What was discarded, in bytes.
    pub bytes: i64,
}

/// A file was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDeleted {
    /// The organization that owns the file.
    pub organization_id: Uuid,
    /// What was freed, in bytes.
    pub bytes: i64,
}
