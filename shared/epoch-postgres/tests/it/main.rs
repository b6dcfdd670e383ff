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
mod personal;
mod progress;
mod reading;
mod rebuild;
mod relay;
mod sagas;
mod snapshots;
mod states;
mod transactions;
mod writes;
