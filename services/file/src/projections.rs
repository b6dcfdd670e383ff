//! Projections: event handlers that maintain the read models.

pub(crate) mod files;
