//! End-to-end tests through the public API and the command line: real processes, a real Postgres, a real Kafka.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod api_client;
mod bad_input;
mod broker;
mod crashes;
mod flow;
mod foreign_client;
mod gateway_routes;
mod installation;
mod metrics;
mod openapi_document;
mod operations;
mod postgres_restart;
mod public_api;
