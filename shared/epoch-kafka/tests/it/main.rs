//! The bus against a real broker (`EPOCH_TEST_KAFKA`), or librdkafka's mock cluster.
//!
//! Every test has topics and groups of its own, and waits for conditions, never for time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, in its helpers as well")]

mod broker;
#[path = "../../../epoch-registry/tests/it/confluent.rs"]
mod confluent;
mod conformance;
mod consumer;
#[path = "../../../epoch-registry/tests/it/framing_suite.rs"]
mod framing_suite;
mod lost_tail;
mod outage;
mod partitioning;
mod personal_data;
mod publisher;
mod rebalance;
mod registry;
mod support;
