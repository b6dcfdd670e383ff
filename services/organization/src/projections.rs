//! Projections: event handlers that maintain the read models.

mod organizations;

pub use organizations::Organizations;
