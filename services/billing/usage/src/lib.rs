//! Usage of files and jobs: read models, rollups, queries over any period, and reconciliation.
//!
//! The billing service owns the tables and their migrations; this crate reads and writes them.

pub mod page;
pub mod queries;
pub mod read_error;
pub mod read_models;
pub mod reconciliation;
pub mod rollup;
pub mod sharing;
mod usage_row;
