//! Plain tables of this service. They are not event-sourced, and no other service reads them.

pub(crate) mod api_keys;
pub(crate) mod users;
