//! Event handlers with external effects.

pub(crate) mod part_cleanup;
