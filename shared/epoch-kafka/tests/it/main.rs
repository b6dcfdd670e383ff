//! The bus against a real broker (`EPOCH_TEST_KAFKA`), or librdkafka's mock cluster.
//!
//! Every test has topics and groups of its own, and waits for conditions, never for time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, in its helpers as well")]

mod broker;
mod bus;
#[path = "../../../epoch-registry/tests/it/confluent.rs"]
mod confluent;
mod consuming;
#[path = "../../../epoch-registry/tests/it/framed.rs"]
mod framed;
mod group;
mod lost_tail;
mod outage;
mod partitioning;
mod personal;
mod publishing;
mod registry;
mod support;
