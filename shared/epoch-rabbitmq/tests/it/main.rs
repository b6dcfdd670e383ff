//! Tests of the bus against a real broker (`EPOCH_TEST_AMQP`). Without one, the tests are skipped with a message.
//!
//! Each test has its own topics and groups, and waits for conditions instead of fixed times.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod broker;
#[path = "../../../epoch-registry/tests/it/confluent.rs"]
mod confluent;
mod conformance;
#[path = "../../../epoch-registry/tests/it/framing_suite.rs"]
mod framing_suite;
mod outage;
mod registry;
mod support;
mod tls;
