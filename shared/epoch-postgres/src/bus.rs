//! A bus in a Postgres database.

pub(crate) mod pg_bus;
