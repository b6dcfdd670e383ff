//! Integration tests of Epoch with the in-memory stores and bus.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod bus;
mod counter;
mod evolution;
mod examples;
mod execute;
mod fast_path;
mod fulfilment;
mod guide;
mod handlers;
mod memory;
mod personal;
mod saga;
mod stored_states;
mod trace;
