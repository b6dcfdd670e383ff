//! What follows from events, outside the aggregates.

pub(crate) mod part_cleanup;
