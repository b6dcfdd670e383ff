//! Where bytes lie: part objects in an object store.
//!
//! The problem: bytes are too large for events and for memory, and a crash may come between any two of them.
//!
//! The invariant: a part object is written once, under `parts/<file>/<part>`, is there whole and durably or not at all, and
//! never changes; neither writing nor reading holds more than one [write](super::part_writer) in memory.

use std::{
    io,
    path::{Path as Directory, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use epoch::Timestamp;
use futures::{Stream, StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, local::LocalFileSystem, path::Path,
};
use uuid::Uuid;

use super::part_writer::PartWriter;
use crate::domain::range::Slice;

/// Names the directory for data.
const DATA_DIR: &str = "CATACLOUD_DATA_DIR";

/// Where data lies when nothing else is said.
const DEFAULT_DATA_DIR: &str = ".dev/data";

/// The prefix of all part objects.
const PARTS: &str = "parts";

/// How large a part grows before the next one begins: what a crash can cost at most.
const PART_BYTES: u64 = 64 * 1024 * 1024;

/// Why bytes can't be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The directory for data can't be used.
    #[error("{DATA_DIR} {} can't be used: {source}", directory.display())]
    Directory {
        /// Which.
        directory: PathBuf,
        /// What was seen.
        source: io::Error,
    },
    /// The object store said no.
    #[error(transparent)]
    Store(#[from] Error),
    /// A part object isn't as long as it was recorded.
    #[error("part {part_id} of file {file} is cut short")]
    CutShort {
        /// Whose part.
        file: Uuid,
        /// Which part.
        part_id: Uuid,
    },
}

/// The directory for data, as the environment says.
#[must_use]
pub fn data_dir() -> PathBuf {
    let said = std::env::var_os(DATA_DIR).filter(|directory| !directory.is_empty());
    said.map_or_else(|| DEFAULT_DATA_DIR.into(), PathBuf::from)
}

/// A part object that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartObject {
    /// Whose part.
    pub file: Uuid,
    /// Which part.
    pub part_id: Uuid,
    /// When it was last written to.
    pub modified: Timestamp,
}

/// Stores parts; cheap to clone.
#[derive(Debug, Clone)]
pub struct PartStore {
    store: Arc<dyn ObjectStore>,
    directory: PathBuf,
    part_bytes: u64,
}

impl PartStore {
    /// A store in a directory of this machine, which is made if it isn't there.
    ///
    /// # Errors
    /// [`StorageError`] when the directory can't be made or read.
    pub fn in_directory(directory: &Directory) -> Result<Self, StorageError> {
        let unusable = |source| StorageError::Directory { directory: directory.to_owned(), source };
        std::fs::create_dir_all(directory).map_err(unusable)?;
        let store = LocalFileSystem::new_with_prefix(directory)?.with_fsync(true).with_automatic_cleanup(true);
        Ok(Self { store: Arc::new(store), directory: directory.to_owned(), part_bytes: PART_BYTES })
    }

    /// The same with another size of parts.
    #[must_use]
    pub fn with_part_bytes(mut self, part_bytes: u64) -> Self {
        self.part_bytes = part_bytes;
        self
    }

    /// How large a part grows before the next one begins.
    #[must_use]
    pub fn part_bytes(&self) -> u64 {
        self.part_bytes
    }

    /// Begins a part; nothing is stored before its first bytes.
    #[must_use]
    pub fn begin(&self, file: Uuid) -> PartWriter {
        let part_id = Uuid::now_v7();
        PartWriter::new(Arc::clone(&self.store), path(file, part_id), part_id)
    }

    /// Deletes a part, if it is there.
    ///
    /// # Errors
    /// [`StorageError`] when the store can't be asked.
    pub async fn delete(&self, file: Uuid, part_id: Uuid) -> Result<(), StorageError> {
        gone(self.store.delete(&path(file, part_id)).await)
    }

    /// Deletes all parts of a file that are there.
    ///
    /// # Errors
    /// [`StorageError`] when the store can't be asked.
    pub async fn delete_all(&self, file: Uuid) -> Result<(), StorageError> {
        let mut objects = self.store.list(Some(&Path::from(PARTS).join(file.to_string())));
        while let Some(object) = objects.try_next().await? {
            gone(self.store.delete(&object.location).await)?;
        }
        Ok(())
    }

    /// All parts that are there, recorded or not.
    pub fn list(&self) -> BoxStream<'static, Result<PartObject, StorageError>> {
        let objects = self.store.list(Some(&Path::from(PARTS)));
        // What isn't named like a part isn't ours to judge.
        objects.map_err(StorageError::from).try_filter_map(async |object| Ok(part_object(&object))).boxed()
    }

    /// Deletes what a process left half written when it was killed, and hasn't been touched since `before`. Such files are
    /// invisible to [`PartStore::list`].
    ///
    /// # Errors
    /// [`StorageError`] when the directory can't be read.
    pub async fn delete_half_written(&self, before: Timestamp) -> Result<usize, StorageError> {
        let directory = self.directory.join(PARTS);
        let swept = directory.clone();
        let result = tokio::task::spawn_blocking(move || delete_half_written(&swept, before)).await;
        let result = result.unwrap_or_else(|error| Err(io::Error::other(error)));
        result.map_err(|source| StorageError::Directory { directory, source })
    }

    /// The bytes of `slices`, one after the other.
    pub fn read(
        &self,
        file: Uuid,
        slices: Vec<Slice>,
    ) -> impl Stream<Item = Result<Bytes, StorageError>> + Send + use<> {
        let store = Arc::clone(&self.store);
        futures::stream::iter(slices).then(move |slice| open(Arc::clone(&store), file, slice)).try_flatten()
    }
}

async fn open(
    store: Arc<dyn ObjectStore>,
    file: Uuid,
    slice: Slice,
) -> Result<impl Stream<Item = Result<Bytes, StorageError>> + Send, StorageError> {
    let options = GetOptions { range: Some(GetRange::Bounded(slice.range.clone())), ..GetOptions::default() };
    let object = store.get_opts(&path(file, slice.part_id), options).await?;
    if object.range != slice.range {
        return Err(StorageError::CutShort { file, part_id: slice.part_id });
    }
    Ok(object.into_stream().map_err(StorageError::from))
}

fn path(file: Uuid, part_id: Uuid) -> Path {
    Path::from(PARTS).join(file.to_string()).join(part_id.to_string())
}

fn part_object(object: &ObjectMeta) -> Option<PartObject> {
    let (directory, part) = object.location.as_ref().rsplit_once('/')?;
    let (_, file) = directory.rsplit_once('/')?;
    let modified = Timestamp::from_millis(object.last_modified.timestamp_millis());
    Some(PartObject { file: file.parse().ok()?, part_id: part.parse().ok()?, modified })
}

/// What isn't there needs no deletion.
fn gone(deleted: Result<(), Error>) -> Result<(), StorageError> {
    match deleted {
        Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The local store writes to `<part>#<number>` and renames it when it is whole.
fn delete_half_written(parts: &Directory, before: Timestamp) -> io::Result<usize> {
    let mut deleted = 0;
    for file in entries(parts)? {
        for part in entries(&file)? {
            let is_half_written = part.file_name().is_some_and(|name| name.to_string_lossy().contains('#'));
            if is_half_written && modified(&part)?.is_some_and(|modified| modified < before) {
                std::fs::remove_file(&part)?;
                deleted += 1;
            }
        }
    }
    Ok(deleted)
}

/// What is in a directory; nothing when it isn't there.
fn entries(directory: &Directory) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// When a file was last written to; `None` when it isn't there any more.
fn modified(path: &Directory) -> io::Result<Option<Timestamp>> {
    let modified = match std::fs::metadata(path).and_then(|metadata| metadata.modified()) {
        Ok(modified) => modified,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(Some(Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))))
}
