//! Which trace this is part of.

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
    /// The trace id of the request this task answers: it has one even if nothing listens to spans.
    pub(super) static REQUEST_TRACE_ID: String;
}

/// The trace id (32 hex digits) of the request being answered, else of the current span.
#[must_use]
pub fn current_trace_id() -> Option<String> {
    REQUEST_TRACE_ID.try_with(Clone::clone).ok().or_else(|| trace_id_of(&Span::current()))
}

/// The current span as W3C `traceparent`, to be sent along with a request or stored with an event.
#[must_use]
pub fn traceparent_of_current_span() -> Option<String> {
    let span = span_context(&Span::current())?;
    Some(format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8()))
}

/// Makes `span`, which nobody has entered yet, part of the trace of a W3C `traceparent`; nothing happens if that is malformed.
#[must_use]
pub fn with_parent(span: Span, traceparent: &str) -> Span {
    let parent = parse(traceparent);
    if parent.span().span_context().is_valid() {
        // Fails only where nothing listens to this span.
        let _ = span.set_parent(parent);
    }
    span
}

/// Links `span` to the one of a W3C `traceparent`, as to one of several causes; nothing happens if that is malformed.
pub(super) fn link(span: &Span, traceparent: &str) {
    span.add_link(parse(traceparent).span().span_context().clone());
}

pub(super) fn trace_id_of(span: &Span) -> Option<String> {
    span_context(span).map(|span| span.trace_id().to_string())
}

pub(super) fn trace_id_in(traceparent: &str) -> Option<String> {
    let parent = parse(traceparent);
    let parent = parent.span().span_context().clone();
    parent.is_valid().then(|| parent.trace_id().to_string())
}

fn parse(traceparent: &str) -> Context {
    let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    // Not beneath the current context: a malformed parent is no parent.
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

    fn traced<T>(run: impl FnOnce() -> T) -> T {
        let tracer = SdkTracerProvider::builder().build().tracer("test");
        let subscriber = tracing_subscriber::registry().with(tracing_opentelemetry::layer().with_tracer(tracer));
        tracing::subscriber::with_default(subscriber, run)
    }

    #[test]
    fn a_span_continues_the_trace_of_its_parent() {
        traced(|| {
            with_parent(tracing::info_span!("child"), TRACEPARENT).in_scope(|| {
                assert_eq!(current_trace_id().as_deref(), Some(TRACE_ID));
                let traceparent = traceparent_of_current_span().unwrap();
                assert_eq!(trace_id_in(&traceparent).as_deref(), Some(TRACE_ID));
                assert_ne!(traceparent, TRACEPARENT, "the span has an id of its own");
            });
        });
    }

    /// Keeps spans that have ended.
    #[derive(Debug, Clone, Default)]
    struct Ended(Arc<Mutex<Vec<SpanData>>>);

    impl SpanProcessor for Ended {
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
    fn a_delivery_is_linked_to_what_caused_its_events() {
        let ended = Ended::default();
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
    fn a_malformed_parent_is_no_parent() {
        traced(|| {
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
    async fn a_request_has_a_trace_id_even_if_nothing_listens() {
        assert_eq!(traceparent_of_current_span(), None);
        assert_eq!(current_trace_id(), None);
        let seen = REQUEST_TRACE_ID.scope(TRACE_ID.to_owned(), async { current_trace_id() }).await;
        assert_eq!(seen.as_deref(), Some(TRACE_ID));
    }
}
