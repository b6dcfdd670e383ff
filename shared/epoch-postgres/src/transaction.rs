//! Transactions over several aggregates of a service and its own tables.

pub(crate) mod begin;
pub(crate) mod durability;
pub(crate) mod error;
pub(crate) mod pg_tx;
pub(crate) mod state_write;
