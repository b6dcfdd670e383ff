//! Storage of file content as part objects.
//!
//! Content is too large for events and for memory, and a process may stop at any point. A part object is written once,
//! under `parts/<file>/<part>`. It is either absent, or whole and durable, and it never changes. Reading and writing
//! hold at most one [write](PartWriter) of a part in memory.

mod data_dir;
mod error;
mod incomplete_objects;
mod part_path;
mod part_store;
mod part_writer;

pub use self::{
    data_dir::data_dir,
    error::StorageError,
    part_store::{PartObject, PartStore},
    part_writer::{PartWriter, StoredPart},
};
