//! Errors of the part storage.

use std::{io, path::PathBuf};

use uuid::Uuid;

use super::data_dir::DATA_DIR;

/// Failure to store or read a part.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("data directory {} ({DATA_DIR}) is not usable: {source}", directory.display())]
    Directory { directory: PathBuf, source: io::Error },
    #[error(transparent)]
    Store(#[from] object_store::Error),
    /// A part object is shorter than its record.
    #[error("part {part_id} of file {file} is truncated")]
    Truncated { file: Uuid, part_id: Uuid },
}
