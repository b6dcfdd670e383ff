//! Tests of the file service through its HTTP routes, on a real database and real files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod aggregate;
mod bad_input;
mod connection;
mod deletion;
mod download;
mod files;
mod storage;
mod support;
mod uploads;
