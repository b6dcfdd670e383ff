//! Rollups: sums of level changes by time bucket.

pub mod bucket;
pub mod ranges;
pub(crate) mod run_changes;
pub mod scope;
pub mod span_sums;
