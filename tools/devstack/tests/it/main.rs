//! The development stack from outside: the command and the servers.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod command;
mod postgres;
