//! Read models.

mod organizations;

pub use organizations::Organizations;
