//! Read models.

pub(crate) mod files;
