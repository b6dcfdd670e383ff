//! Tests of the bus against a real broker (`EPOCH_TEST_KAFKA`) or librdkafka's mock cluster.
//!
//! Each test has its own topics and groups, and waits for conditions instead of fixed times.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests and their helpers fail by panicking")]

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
#[path = "../../../epoch-postgres/tests/it/person_event.rs"]
mod person_event;
mod personal_data;
mod publisher;
mod rebalance;
mod registry;
mod support;
