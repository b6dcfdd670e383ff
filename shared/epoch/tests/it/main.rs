//! Epoch in memory: what every store and bus promises, and what `execute` makes of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod bus;
mod counter;
mod evolution;
mod examples;
mod execute;
mod fulfilment;
mod guide;
mod handlers;
mod kept;
mod local;
mod memory;
mod personal;
mod saga;
mod trace;
