//! Tests of a runner with real child processes and real sockets. The job and file services are fakes that record requests
//! and can fail on demand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod binary;
mod fake_platform;
mod harness;
mod interruptions;
mod outages;
mod outputs;
mod program_exits;
