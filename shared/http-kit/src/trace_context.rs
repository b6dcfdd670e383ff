//! W3C trace context: parsing and writing `traceparent`, and the trace id of the current request.
//!
//! Every request has a trace id, whether or not traces are exported. It appears in log lines, problems, requests to other
//! services and events.

use std::collections::HashMap;

use opentelemetry::{
    Context,
    propagation::TextMapPropagator,
    trace::{SpanContext, TraceContextExt},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

tokio::task_local! {
    /// The trace id of the request that this task processes. Set even if no subscriber records spans.
    pub(crate) static REQUEST_TRACE_ID: String;
}

/// Returns the trace id (32 hex digits) of the current request, or else of the current span.
#[must_use]
pub fn current_trace_id() -> Option<String> {
    REQUEST_TRACE_ID.try_with(Clone::clone).ok().or_else(|| trace_id_of(&Span::current()))
}

/// Returns the current span as a W3C `traceparent`, to be sent with a request or stored with an event.
#[must_use]
pub fn traceparent_of_current_span() -> Option<String> {
    let span = span_context(&Span::current())?;
    Some(format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8()))
}

/// Makes `span`, which must not have been entered yet, a child of a W3C `traceparent`. Ignores a malformed one.
#[must_use]
pub fn with_parent(span: Span, traceparent: &str) -> Span {
    let parent = parse(traceparent);
    if parent.span().span_context().is_valid() {
        // Fails only if no subscriber records this span.
        let _ = span.set_parent(parent);
    }
    span
}

/// Links `span` to the span of a W3C `traceparent`, as one of several causes. Ignores a malformed one.
pub fn link(span: &Span, traceparent: &str) {
    span.add_link(parse(traceparent).span().span_context().clone());
}

pub(crate) fn trace_id_of(span: &Span) -> Option<String> {
    span_context(span).map(|span| span.trace_id().to_string())
}

pub(crate) fn trace_id_in(traceparent: &str) -> Option<String> {
    let parent = parse(traceparent);
    let parent = parent.span().span_context().clone();
    parent.is_valid().then(|| parent.trace_id().to_string())
}

fn parse(traceparent: &str) -> Context {
    let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    // Not within the current context, which would become the parent if this one is malformed.
    TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier)
}

fn span_context(span: &Span) -> Option<SpanContext> {
    let context = span.context().span().span_context().clone();
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry::{Context, trace::TracerProvider};
    use opentelemetry_sdk::{
        error::OTelSdkResult,
        trace::{SdkTracerProvider, Span, SpanData, SpanProcessor},
    };
    use tracing_subscriber::layer::SubscriberExt;

    use super::{REQUEST_TRACE_ID, current_trace_id, trace_id_in, traceparent_of_current_span, with_parent};

    const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
    const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn with_tracing<T>(run: impl FnOnce() -> T) -> T {
        let tracer = SdkTracerProvider::builder().build().tracer("test");
        let subscriber = tracing_subscriber::registry().with(tracing_opentelemetry::layer().with_tracer(tracer));
        tracing::subscriber::with_default(subscriber, run)
    }

    #[test]
    fn span_continues_the_trace_of_its_parent() {
        with_tracing(|| {
            with_parent(tracing::info_span!("child"), TRACEPARENT).in_scope(|| {
                assert_eq!(current_trace_id().as_deref(), Some(TRACE_ID));
                let traceparent = traceparent_of_current_span().unwrap();
                assert_eq!(trace_id_in(&traceparent).as_deref(), Some(TRACE_ID));
                assert_ne!(traceparent, TRACEPARENT, "the span has an id of its own");
            });
        });
    }

    #[derive(Debug, Clone, Default)]
    struct EndedSpans(Arc<Mutex<Vec<SpanData>>>);

    impl SpanProcessor for EndedSpans {
        fn on_start(&self, _span: &mut Span, _context: &Context) {}

        fn on_end(&self, span: SpanData) {
            self.0.lock().unwrap().push(span);
        }

        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }

        fn shutdown_with_timeout(&self, _limit: std::time::Duration) -> OTelSdkResult {
            Ok(())
        }
    }

    #[test]
    fn span_is_linked_to_its_cause() {
        let ended = EndedSpans::default();
        let tracer = SdkTracerProvider::builder().with_span_processor(ended.clone()).build().tracer("test");
        let subscriber = tracing_subscriber::registry().with(tracing_opentelemetry::layer().with_tracer(tracer));
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::debug_span!("deliver");
            super::link(&span, TRACEPARENT);
            super::link(&span, "malformed");
        });
        let ended = ended.0.lock().unwrap();
        let [span] = ended.as_slice() else { panic!("one span: {ended:?}") };
        let links: Vec<_> = span.links.iter().map(|link| link.span_context.trace_id().to_string()).collect();
        assert_eq!(links, [TRACE_ID]);
        assert_ne!(span.span_context.trace_id().to_string(), TRACE_ID, "a link, not a parent");
    }

    #[test]
    fn malformed_parent_is_ignored() {
        with_tracing(|| {
            for wrong in ["", "00", "00-0-0-00", &TRACEPARENT[3..], &TRACEPARENT.replace(TRACE_ID, &"0".repeat(32))] {
                with_parent(tracing::info_span!("root"), wrong).in_scope(|| {
                    let trace_id = current_trace_id().unwrap();
                    assert_eq!(trace_id.len(), 32);
                    assert_ne!(trace_id, TRACE_ID);
                });
                assert_eq!(trace_id_in(wrong), None);
            }
        });
    }

    #[tokio::test]
    async fn request_has_trace_id_without_subscriber() {
        assert_eq!(traceparent_of_current_span(), None);
        assert_eq!(current_trace_id(), None);
        let seen = REQUEST_TRACE_ID.scope(TRACE_ID.to_owned(), async { current_trace_id() }).await;
        assert_eq!(seen.as_deref(), Some(TRACE_ID));
    }
}
