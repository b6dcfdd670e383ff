//! Export of traces to an OTLP collector.
//!
//! The batch processor exports on its own thread, which has no Tokio reactor, but the HTTP client needs one.

use std::time::Duration;

use opentelemetry_otlp::{SpanExporter as Otlp, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SpanData, SpanExporter},
};
use tokio::runtime::Handle;
use tokio_util::context::TokioContext;

use super::error::TelemetryError;

/// Returns an exporter to `<endpoint>/v1/traces`.
pub(super) fn otlp(endpoint: &str) -> Result<impl SpanExporter + use<>, TelemetryError> {
    let runtime = Handle::try_current().map_err(|error| TelemetryError::Exporter { detail: error.to_string() })?;
    let traces = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
    let exporter = Otlp::builder()
        .with_http()
        .with_endpoint(traces)
        .build()
        .map_err(|error| TelemetryError::Exporter { detail: error.to_string() })?;
    Ok(OnRuntime { exporter, runtime })
}

/// Polls an exporter's futures within a Tokio runtime, on any thread.
#[derive(Debug)]
struct OnRuntime {
    exporter: Otlp,
    runtime: Handle,
}

impl SpanExporter for OnRuntime {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        TokioContext::new(self.exporter.export(batch), self.runtime.clone()).await
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use std::{future::IntoFuture, time::Duration};

    use axum::{Router, body::Bytes, http::HeaderMap, routing::post};
    use opentelemetry::trace::{Tracer, TracerProvider};
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tokio::{net::TcpListener, sync::mpsc};

    use super::otlp;

    #[tokio::test]
    async fn spans_reach_the_collector() {
        let (sender, mut received) = mpsc::unbounded_channel();
        let collect = post(async move |headers: HeaderMap, body: Bytes| sender.send((headers, body)).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, Router::new().route("/v1/traces", collect)).into_future());

        let provider = SdkTracerProvider::builder().with_batch_exporter(otlp(&endpoint).unwrap()).build();
        drop(provider.tracer("test").start("a span of the test"));
        let flush = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(Duration::from_secs(5)));
        flush.await.unwrap().unwrap();

        let (headers, body) = received.recv().await.unwrap();
        assert_eq!(headers["content-type"], "application/x-protobuf");
        assert!(body.windows(18).any(|bytes| bytes == b"a span of the test"));
    }

    #[test]
    fn exporter_requires_a_runtime() {
        assert!(otlp("http://127.0.0.1:4318").is_err());
    }

    #[tokio::test]
    async fn invalid_address_is_refused() {
        assert!(otlp("not an address").is_err());
    }
}
