//! Where a delivery comes from.
//!
//! The problem: a batch of events has as many causes as events, so its span can't be the child of any of them; and Epoch
//! must not depend on a tracing system to say so.
//!
//! The invariant: every event carries the trace context of what caused it; whoever knows the tracing system installs how to link a
//! span to one, once. Without that, or when nobody listens to the span, nothing is done.

use std::sync::{Arc, OnceLock};

use tracing::Span;

use crate::envelope::{Batch, Envelope};

/// Links a span to a W3C `traceparent`.
pub type Linker = fn(&Span, &str);

static LINKER: OnceLock<Linker> = OnceLock::new();

/// How many links a span gets at most: a batch may have hundreds of causes.
const LINKS: usize = 32;

/// Installs how spans are linked, for the whole process; the first one counts.
pub fn link_with(linker: Linker) {
    LINKER.get_or_init(|| linker);
}

/// Links the span of a delivery to those that caused its events.
pub fn link(span: &Span, events: &Batch) {
    if let Some(linker) = LINKER.get()
        && !span.is_disabled()
    {
        causes(events).for_each(|cause| linker(span, cause));
    }
}

/// The trace contexts of these events; one for neighbours that share it, as those of one command do.
fn causes(events: &Batch) -> impl Iterator<Item = &str> {
    let same = |one: &Arc<Envelope>, next: &Arc<Envelope>| one.metadata.trace_context == next.metadata.trace_context;
    let runs = events.chunk_by(same);
    runs.filter_map(|run| run.first()?.metadata.trace_context.as_deref()).take(LINKS)
}
