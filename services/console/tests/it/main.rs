//! Tests of the gateway on real sockets, with services in separate processes and in its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod authentication;
mod documents;
mod faults;
mod forwarding;
mod limits;
mod page;
mod streaming;
mod support;
