//! The event store: appending, reading, states and snapshots.

pub(crate) mod append;
pub(crate) mod appender;
pub(crate) mod loader;
pub(crate) mod pg_store;
pub(crate) mod snapshots;
pub(crate) mod states;
pub(crate) mod stream_ends;
pub(crate) mod streams;
