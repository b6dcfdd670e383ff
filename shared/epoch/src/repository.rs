//! Execution of commands: load, decide, append, retry.
//!
//! - [`Repository::execute`] and its retry loop are in `execute.rs`, states and reads in `load.rs`.
//! - The state cache, the pending states and the conflict queue make commands on one aggregate fast. All three are
//!   optimizations: the version check of each append is the only authority.

mod cache;
mod conflict_queue;
mod decision;
mod execute;
mod load;
mod outcome;
mod pending_states;
mod point_in_time;
#[allow(clippy::module_inception, reason = "the file is named after its main type")]
mod repository;

pub use decision::Decision;
pub use outcome::{ExecuteError, ExecutionOutcome};
pub use point_in_time::PointInTime;
pub use repository::Repository;
