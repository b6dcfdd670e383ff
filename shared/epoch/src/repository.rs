//! Command execution.

pub mod cache;
mod load;
mod pending_states;
#[allow(clippy::module_inception, reason = "the file is named after its main type")]
mod repository;

pub use load::At;
pub use repository::{ExecuteError, Executed, Repository};
