//! A runner with real child processes and real sockets; the job and file services are doubles that remember what they were
//! asked and can be told to fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod binary;
mod fake_platform;
mod harness;
mod interruptions;
mod outages;
mod outputs;
mod program_exits;
