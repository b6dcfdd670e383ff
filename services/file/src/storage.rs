//! Storage of file parts in an object store.

mod part_store;
mod part_writer;

pub use self::{
    part_store::{PartObject, PartStore, StorageError, data_dir},
    part_writer::{PartWriter, StoredPart},
};
