//! The HTTP edge over a sample router: bad input, commands, limits, broken connections and OpenAPI.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot continue has failed")]

mod bad_input;
mod commands;
mod edge;
mod openapi;
mod support;

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt, util::SubscriberInitExt};

/// Records spans, so that requests have span ids. The first call installs the subscriber.
pub(crate) fn init_telemetry() {
    let tracer = SdkTracerProvider::builder().build().tracer("test");
    let spans = tracing_opentelemetry::layer().with_tracer(tracer);
    let _ = tracing_subscriber::registry().with(LevelFilter::INFO).with(spans).try_init();
}
