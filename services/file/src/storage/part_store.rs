//! The store of part objects.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use epoch::Timestamp;
use futures::{Stream, StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, local::LocalFileSystem};
use uuid::Uuid;

use super::{
    error::StorageError,
    incomplete_objects::delete_incomplete,
    part_path::{PARTS, all_parts, parse_part_path, part_path, parts_of},
    part_writer::PartWriter,
};
use crate::domain::range::PartSlice;

/// Size at which a part is complete and the next one starts. A crash loses at most the unrecorded part.
const PART_BYTES: u64 = 64 * 1024 * 1024;

/// Stored part object, recorded or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartObject {
    pub file: Uuid,
    pub part_id: Uuid,
    /// Time of the last write.
    pub modified: Timestamp,
}

/// Store of part objects; cheap to clone.
#[derive(Debug, Clone)]
pub struct PartStore {
    store: Arc<dyn ObjectStore>,
    directory: PathBuf,
    part_bytes: u64,
}

impl PartStore {
    /// Opens a store in a local directory, and creates a missing directory.
    ///
    /// # Errors
    /// [`StorageError`] when the directory cannot be created or read.
    pub fn in_directory(directory: &Path) -> Result<Self, StorageError> {
        let unusable = |source| StorageError::Directory { directory: directory.to_owned(), source };
        std::fs::create_dir_all(directory).map_err(unusable)?;
        let store = LocalFileSystem::new_with_prefix(directory)?.with_fsync(true).with_automatic_cleanup(true);
        Ok(Self { store: Arc::new(store), directory: directory.to_owned(), part_bytes: PART_BYTES })
    }

    /// Sets the size of parts.
    #[must_use]
    pub fn with_part_bytes(mut self, part_bytes: u64) -> Self {
        self.part_bytes = part_bytes;
        self
    }

    /// Returns the size at which a part is complete and the next one starts.
    #[must_use]
    pub fn part_bytes(&self) -> u64 {
        self.part_bytes
    }

    /// Returns a writer for a new part. Nothing is stored before its first write.
    #[must_use]
    pub fn create_part(&self, file: Uuid) -> PartWriter {
        let part_id = Uuid::now_v7();
        PartWriter::new(Arc::clone(&self.store), part_path(file, part_id), part_id)
    }

    /// Deletes a part; a missing part is no error.
    ///
    /// # Errors
    /// [`StorageError`] when the store fails.
    pub async fn delete(&self, file: Uuid, part_id: Uuid) -> Result<(), StorageError> {
        ignore_missing(self.store.delete(&part_path(file, part_id)).await)
    }

    /// Deletes all stored parts of a file.
    ///
    /// # Errors
    /// [`StorageError`] when the store fails.
    pub async fn delete_all(&self, file: Uuid) -> Result<(), StorageError> {
        let mut objects = self.store.list(Some(&parts_of(file)));
        while let Some(object) = objects.try_next().await? {
            ignore_missing(self.store.delete(&object.location).await)?;
        }
        Ok(())
    }

    /// Lists all stored parts, recorded or not. Objects with other names are skipped.
    pub fn list(&self) -> BoxStream<'static, Result<PartObject, StorageError>> {
        let objects = self.store.list(Some(&all_parts()));
        objects.map_err(StorageError::from).try_filter_map(async |object| Ok(part_object(&object))).boxed()
    }

    /// Deletes incomplete objects that were last modified before `before`. Stopped processes leave them, and
    /// [`PartStore::list`] does not show them. Returns the number of deleted objects.
    ///
    /// # Errors
    /// [`StorageError`] when the directory cannot be read.
    pub async fn delete_incomplete(&self, before: Timestamp) -> Result<usize, StorageError> {
        let directory = self.directory.join(PARTS);
        let parts = directory.clone();
        let result = tokio::task::spawn_blocking(move || delete_incomplete(&parts, before)).await;
        let result = result.unwrap_or_else(|error| Err(io::Error::other(error)));
        result.map_err(|source| StorageError::Directory { directory, source })
    }

    /// Streams the bytes of `slices` in order.
    pub fn read(
        &self,
        file: Uuid,
        slices: Vec<PartSlice>,
    ) -> impl Stream<Item = Result<Bytes, StorageError>> + Send + use<> {
        let store = Arc::clone(&self.store);
        futures::stream::iter(slices).then(move |slice| open_slice(Arc::clone(&store), file, slice)).try_flatten()
    }
}

async fn open_slice(
    store: Arc<dyn ObjectStore>,
    file: Uuid,
    slice: PartSlice,
) -> Result<impl Stream<Item = Result<Bytes, StorageError>> + Send, StorageError> {
    let options = GetOptions { range: Some(GetRange::Bounded(slice.range.clone())), ..GetOptions::default() };
    let object = store.get_opts(&part_path(file, slice.part_id), options).await?;
    if object.range != slice.range {
        return Err(StorageError::Truncated { file, part_id: slice.part_id });
    }
    Ok(object.into_stream().map_err(StorageError::from))
}

fn part_object(object: &ObjectMeta) -> Option<PartObject> {
    let (file, part_id) = parse_part_path(&object.location)?;
    let modified = Timestamp::from_millis(object.last_modified.timestamp_millis());
    Some(PartObject { file, part_id, modified })
}

fn ignore_missing(deletion: Result<(), Error>) -> Result<(), StorageError> {
    match deletion {
        Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
