//! Connections, transactions, errors, row decoding and migrations: the layer below every other module.

pub(crate) mod begin;
pub(crate) mod connect;
pub(crate) mod error;
pub(crate) mod functions;
pub(crate) mod migrations;
pub(crate) mod rows;
