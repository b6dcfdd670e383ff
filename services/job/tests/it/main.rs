//! Tests of the job service through its HTTP routes, on a real database.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod attempts;
mod bad_input;
mod budget_check;
mod configurations;
mod files;
mod jobs;
mod leases;
mod openapi;
mod operations;
mod projections;
mod support;
