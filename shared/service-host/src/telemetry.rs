//! Logs, traces and metrics.
//!
//! The problem: what happens to one request is spread over several processes and a bus; without one name for it, nobody
//! can put it together again.
//!
//! The invariant: every request has a trace id, whether or not traces are exported; it is in the log lines, in problems, in
//! requests to other services and in the events it causes.

mod context;
mod export;
mod http;
mod metrics;

use std::{
    io::IsTerminal,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use opentelemetry::{global, trace::TracerProvider};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

pub use self::{
    context::{current_trace_id, traceparent_of_current_span, with_parent},
    http::trace_requests,
    metrics::metrics_handle,
};
use crate::config::{LogArgs, LogFormat};

const FLUSH_LIMIT: Duration = Duration::from_secs(3);

/// Why logs, traces or metrics can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log filter can't be read.
    #[error("log filter {filter:?} can't be read: {detail}")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Traces can't be exported there.
    #[error("traces can't be exported: {detail}")]
    Exporter {
        /// What is wrong.
        detail: String,
    },
    /// Somebody else has set up logs or metrics in this process.
    #[error("telemetry was set up by somebody else: {detail}")]
    Taken {
        /// Which part.
        detail: String,
    },
}

/// Keeps traces flowing; sends what is left when it is dropped or [shut down](TelemetryGuard::shutdown).
#[derive(Debug)]
#[must_use = "dropping it ends the export of traces"]
pub struct TelemetryGuard {
    provider: Option<SdkTracerProvider>,
}

impl TelemetryGuard {
    /// Sends what is left, for at most three seconds, without blocking the runtime it needs for that.
    pub async fn shutdown(mut self) {
        if let Some(provider) = self.provider.take() {
            let flush = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_LIMIT));
            if let Ok(Err(error)) = flush.await {
                tracing::warn!(%error, "some traces were not sent");
            }
        }
    }
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take()
            && let Err(error) = provider.shutdown_with_timeout(FLUSH_LIMIT)
        {
            tracing::warn!(%error, "some traces were not sent");
        }
    }
}

/// Sets up logs, traces and metrics of this process; `service` names it in traces. Done before, it changes nothing.
///
/// Call it inside the Tokio runtime if traces are to be exported.
///
/// # Errors
/// [`TelemetryError`] when a setting can't be used or another subscriber or recorder is installed.
pub fn init(service: &'static str, args: &LogArgs) -> Result<TelemetryGuard, TelemetryError> {
    static DONE: Mutex<bool> = Mutex::new(false);
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    if *done {
        return Ok(TelemetryGuard { provider: None });
    }
    let provider = tracer_provider(service, args)?;
    // Not the log filter: with RUST_LOG=warn a request still needs its trace id. The exporter's own requests need none.
    // Epoch's spans are for those who look at traces: where there is nobody, they cost nothing.
    let epoch = if args.otlp_endpoint().is_some() { LevelFilter::DEBUG } else { LevelFilter::INFO };
    let traced = Targets::new().with_default(LevelFilter::INFO).with_target("epoch", epoch).with_targets(
        ["hyper", "hyper_util", "reqwest", "h2", "opentelemetry"].map(|target| (target, LevelFilter::OFF)),
    );
    let traces = tracing_opentelemetry::layer().with_tracer(provider.tracer(service)).with_filter(traced);
    tracing_subscriber::registry()
        .with(log_layer(args)?)
        .with(traces)
        .try_init()
        .map_err(|error| TelemetryError::Taken { detail: error.to_string() })?;
    metrics_handle()?;
    global::set_text_map_propagator(TraceContextPropagator::new());
    global::set_tracer_provider(provider.clone());
    epoch::trace::link_with(context::link);
    *done = true;
    // Without an exporter there is nothing to flush, and a provider that was shut down makes no more ids.
    Ok(TelemetryGuard { provider: args.otlp_endpoint().is_some().then_some(provider) })
}

fn log_layer(args: &LogArgs) -> Result<Box<dyn Layer<Registry> + Send + Sync>, TelemetryError> {
    let filter = EnvFilter::builder()
        .parse(args.filter())
        .map_err(|error| TelemetryError::Filter { filter: args.filter().to_owned(), detail: error.to_string() })?;
    // Standard output belongs to what a subcommand prints.
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    Ok(match args.log_format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).with_filter(filter).boxed(),
    })
}

/// Makes trace ids always, and exports them only where told to.
fn tracer_provider(service: &'static str, args: &LogArgs) -> Result<SdkTracerProvider, TelemetryError> {
    let resource = Resource::builder().with_service_name(service).build();
    let provider = SdkTracerProvider::builder().with_resource(resource);
    match args.otlp_endpoint() {
        Some(endpoint) => Ok(provider.with_batch_exporter(export::otlp(endpoint)?).build()),
        None => Ok(provider.build()),
    }
}
