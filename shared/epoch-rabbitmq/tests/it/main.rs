//! The bus against a real broker (`EPOCH_TEST_AMQP`); without one these tests say so and do nothing.
//!
//! Every test has topics and groups of its own, and waits for conditions, never for time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

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
