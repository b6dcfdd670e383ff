//! Aggregates: the pure decision model of a service.

#[allow(clippy::module_inception, reason = "the file is named after its main type")]
mod aggregate;
pub mod context;
pub mod id;
mod versioned_state;

pub use aggregate::Aggregate;
pub use versioned_state::VersionedState;
