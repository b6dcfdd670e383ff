//! Aggregates: the decision model of a service.

#[allow(clippy::module_inception, reason = "the file is named after its main type")]
mod aggregate;
pub mod context;
pub mod id;

pub use aggregate::Aggregate;
