//! Calls between services, probes, sagas and event streams, each over a running router or process.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot continue has failed")]

mod metric_names;
mod peer;
mod probes;
mod sagas;
mod streams;
#[path = "../../../http-kit/tests/it/support.rs"]
mod support;

use service_host::{config::LogArgs, telemetry};

pub(crate) fn init_telemetry() {
    let log = LogArgs { log: Some("off".to_owned()), ..LogArgs::default() };
    // Nothing is exported, so dropping the guard stops nothing.
    drop(telemetry::init("test", &log).unwrap());
}
