//! Connections, transactions, errors and migrations: the layer below every other module.

pub(crate) mod connect;
pub(crate) mod error;
pub(crate) mod migrations;
pub(crate) mod rows;
