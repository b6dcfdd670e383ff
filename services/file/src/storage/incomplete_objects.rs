//! Incomplete objects of the local store.
//!
//! The local store writes an object to `<part>#<number>` and renames it when it is whole. A process that stops during
//! the write leaves that file behind, and no listing of the store shows it.

use std::{
    io,
    path::{Path, PathBuf},
};

use epoch::Timestamp;

/// Deletes the incomplete objects below `parts` that were last modified before `before`. Returns their number.
pub(super) fn delete_incomplete(parts: &Path, before: Timestamp) -> io::Result<usize> {
    let mut deleted = 0;
    for file in entries(parts)? {
        for part in entries(&file)? {
            let is_incomplete = part.file_name().is_some_and(|name| name.to_string_lossy().contains('#'));
            if is_incomplete && modified(&part)?.is_some_and(|modified| modified < before) {
                std::fs::remove_file(&part)?;
                deleted += 1;
            }
        }
    }
    Ok(deleted)
}

/// Returns the paths in a directory; none for a missing directory.
fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Returns the time of the last modification, or `None` if the file was deleted in the meantime.
fn modified(path: &Path) -> io::Result<Option<Timestamp>> {
    let modified = match std::fs::metadata(path).and_then(|metadata| metadata.modified()) {
        Ok(modified) => modified,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let since_epoch = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(Some(Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))))
}
