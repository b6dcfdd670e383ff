//! Epoch on a real Postgres; each test has a database of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod account;
mod commands;
mod dead_letters;
mod delivery;
mod log_order;
mod progress;
mod relay;
mod transactions;
