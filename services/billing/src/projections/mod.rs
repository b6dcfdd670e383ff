//! Read models of what other services' events say about usage.

pub mod runs;
pub mod storage_changes;
