//! The job service through its doors, on a real database.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod bad_input;
mod configurations;
mod files;
mod jobs;
mod operations;
mod projections;
mod running;
mod silence;
mod standing;
mod support;
