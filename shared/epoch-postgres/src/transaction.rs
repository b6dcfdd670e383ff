//! Transactions over several aggregates and the caller's own tables.

pub(crate) mod pg_tx;
