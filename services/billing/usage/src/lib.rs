//! Usage: read models of files and jobs, rollups, queries over any period, and reconciliation.
//!
//! The billing service owns the tables and their migrations; this crate reads and writes them.

pub mod page;
pub mod queries;
pub mod read_error;
pub mod read_models;
pub mod reconciliation;
pub mod rollup;
mod row;
pub mod sharing;
