//! Setup of logs, traces and metrics.
//!
//! Every request has a trace id, whether or not traces are exported. It appears in log lines, problems, requests to other
//! services and events, so that a request can be followed through processes and the bus.

mod error;
mod export;
mod metrics;

use std::{
    io::IsTerminal,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http_kit::trace_context;
use opentelemetry::{global, trace::TracerProvider};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

pub use self::{error::TelemetryError, metrics::metrics_handle};
use crate::config::{LogArgs, LogFormat};

const FLUSH_LIMIT: Duration = Duration::from_secs(3);

/// Keeps the trace exporter running. Exports the remaining traces on drop or [shutdown](TelemetryGuard::shutdown).
#[derive(Debug)]
#[must_use = "dropping it ends the export of traces"]
pub struct TelemetryGuard {
    provider: Option<SdkTracerProvider>,
}

impl TelemetryGuard {
    /// Exports the remaining traces for at most three seconds, on a blocking thread: the exporter needs the runtime.
    pub async fn shutdown(mut self) {
        if let Some(provider) = self.provider.take() {
            let flush = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_LIMIT));
            if let Ok(Err(error)) = flush.await {
                tracing::warn!(%error, "failed to export some traces");
            }
        }
    }
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take()
            && let Err(error) = provider.shutdown_with_timeout(FLUSH_LIMIT)
        {
            tracing::warn!(%error, "failed to export some traces");
        }
    }
}

/// Sets up logs, traces and metrics of this process. `service` is its name in traces. Later calls have no effect.
///
/// Exporting traces needs a Tokio runtime.
///
/// # Errors
/// [`TelemetryError`] when a setting is invalid or another subscriber or recorder is installed.
pub fn init(service: &'static str, args: &LogArgs) -> Result<TelemetryGuard, TelemetryError> {
    static DONE: Mutex<bool> = Mutex::new(false);
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    if *done {
        return Ok(TelemetryGuard { provider: None });
    }
    let provider = tracer_provider(service, args)?;
    // Traces have their own filter: with RUST_LOG=warn a request still needs its trace id. The exporter's own HTTP client must
    // not be traced. Epoch's debug spans are only recorded if traces are exported.
    let epoch = if args.otlp_endpoint().is_some() { LevelFilter::DEBUG } else { LevelFilter::INFO };
    let traced = Targets::new().with_default(LevelFilter::INFO).with_target("epoch", epoch).with_targets(
        ["hyper", "hyper_util", "reqwest", "h2", "opentelemetry"].map(|target| (target, LevelFilter::OFF)),
    );
    let traces = tracing_opentelemetry::layer().with_tracer(provider.tracer(service)).with_filter(traced);
    tracing_subscriber::registry()
        .with(log_layer(args)?)
        .with(traces)
        .try_init()
        .map_err(|error| TelemetryError::AlreadyInstalled { detail: error.to_string() })?;
    metrics_handle()?;
    global::set_text_map_propagator(TraceContextPropagator::new());
    global::set_tracer_provider(provider.clone());
    epoch::trace::link_with(trace_context::link);
    *done = true;
    // Without an exporter there is nothing to flush, and a provider that was shut down generates no more ids.
    Ok(TelemetryGuard { provider: args.otlp_endpoint().is_some().then_some(provider) })
}

fn log_layer(args: &LogArgs) -> Result<Box<dyn Layer<Registry> + Send + Sync>, TelemetryError> {
    let filter = EnvFilter::builder()
        .parse(args.filter())
        .map_err(|error| TelemetryError::Filter { filter: args.filter().to_owned(), detail: error.to_string() })?;
    // Standard output is reserved for the output of subcommands.
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    Ok(match args.log_format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).with_filter(filter).boxed(),
    })
}

/// Returns a provider that always generates trace ids, and exports traces if a collector is set.
fn tracer_provider(service: &'static str, args: &LogArgs) -> Result<SdkTracerProvider, TelemetryError> {
    let resource = Resource::builder().with_service_name(service).build();
    let provider = SdkTracerProvider::builder().with_resource(resource);
    match args.otlp_endpoint() {
        Some(endpoint) => Ok(provider.with_batch_exporter(export::otlp(endpoint)?).build()),
        None => Ok(provider.build()),
    }
}
