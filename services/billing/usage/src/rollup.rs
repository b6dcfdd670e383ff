//! Sums of level changes by time bucket.

pub mod bucket;
pub mod sums;
