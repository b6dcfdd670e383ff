//! Catacloud as its users and its operators see it: real processes, a real Postgres, a real Kafka, the public door.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod bad_input;
mod broker;
mod crashes;
mod door;
mod flow;
mod foreign_client;
mod gateway_routes;
mod metrics;
mod operations;
mod restart;
mod stack;
