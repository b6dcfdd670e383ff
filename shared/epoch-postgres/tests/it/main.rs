//! Epoch on a real Postgres. Each test creates its own database.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod account;
mod bus;
mod commands;
mod dead_letters;
mod delivery;
mod durability;
#[path = "../../../epoch/tests/it/fulfilment.rs"]
mod fulfilment;
mod functions;
mod log_order;
mod person_event;
mod personal;
mod progress;
mod query_plans;
mod reading;
mod rebuild;
mod rebuild_tables;
mod relay;
mod sagas;
mod snapshots;
mod states;
mod tally_log;
mod transactions;
mod writes;
