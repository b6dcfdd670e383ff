//! The event store: appending in groups, reading streams, states and snapshots.

pub(crate) mod announcer;
pub(crate) mod append;
pub(crate) mod append_autocommit;
pub(crate) mod append_columns;
pub(crate) mod append_with_state;
pub(crate) mod appender;
pub(crate) mod commands;
pub(crate) mod fold_columns;
pub(crate) mod loader;
pub(crate) mod pg_store;
pub(crate) mod snapshots;
pub(crate) mod states;
pub(crate) mod stream_ends;
pub(crate) mod streams;
