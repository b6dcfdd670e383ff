//! The service's plain tables: what is not an aggregate, and nobody outside may see.

pub(crate) mod api_keys;
pub(crate) mod users;
