//! Events of files.
//!
//! Storage is metered by the byte and the millisecond, including uploads that are never finished. Each event that changes the stored
//! bytes therefore carries their number. A complete file is immutable.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The name of the aggregate.
pub const AGGREGATE: &str = "file";

epoch::events! {
    /// An event of a file.
    pub enum FileEvent {
        FileUploadStarted = [schema!("file/FileUploadStarted")],
        FilePartUploaded = [schema!("file/FilePartUploaded")],
        FileUploadCompleted = [schema!("file/FileUploadCompleted")],
        FileUploadAborted = [schema!("file/FileUploadAborted")],
        FileDeleted = [schema!("file/FileDeleted")],
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileUploadStarted {
    pub organization_id: Uuid,
    pub name: String,
    pub content_type: String,
    /// File size declared by the uploader, in bytes.
    pub declared_bytes: i64,
    /// Job that produced the file; `None` for a client's upload.
    pub produced_by_job: Option<Uuid>,
}

/// A part of a file was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePartUploaded {
    pub organization_id: Uuid,
    pub part_id: Uuid,
    /// Offset of the part in the file, in bytes from 0.
    pub offset: i64,
    /// Size of the part, in bytes.
    pub bytes: i64,
    /// SHA-256 of the part, as 64 lowercase hexadecimal digits.
    pub sha256: String,
}

/// The file is complete, readable, and immutable from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileUploadCompleted {
    pub organization_id: Uuid,
    /// Size of the whole file, in bytes.
    pub bytes: i64,
}

/// An upload was aborted and its stored parts were discarded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileUploadAborted {
    pub organization_id: Uuid,
    /// Size of the discarded parts, in bytes.
    pub bytes: i64,
}

/// A file was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDeleted {
    pub organization_id: Uuid,
    /// Size of the deleted file, in bytes.
    pub bytes: i64,
}
