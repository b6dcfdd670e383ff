//! The door, over real sockets, in front of services in other processes and in its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod auth;
mod documents;
mod faults;
mod limits;
mod page;
mod passing;
mod streaming;
mod support;
