//! Event handlers that send commands.

mod storage_usage;

pub use storage_usage::StorageUsage;
