//! What this service does when something happened elsewhere.

mod storage_usage;

pub use storage_usage::StorageUsage;
