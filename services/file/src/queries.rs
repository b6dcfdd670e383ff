//! Queries on the read models.

pub(crate) mod files;
