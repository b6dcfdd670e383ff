//! A runner with real child processes and real sockets; the job and file services are doubles that remember what they were
//! asked and can be told to fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod binary;
mod ends;
mod outages;
mod outputs;
mod platform;
mod running;
mod runs;
