//! Tests of the organization service through its HTTP routes and on its tables.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod api_keys;
mod bad_input;
mod domain;
mod members;
mod organizations;
mod projection;
mod storage_usage;
mod support;
