//! Links from deliveries to the traces that caused their events.
//!
//! A batch of events has several causes, so its span cannot be the child of one of them; it gets links instead. Epoch
//! depends on no tracing backend: the process installs a [`Linker`] once. Without a linker, or for a disabled span,
//! linking does nothing.

use std::sync::{Arc, OnceLock};

use tracing::Span;

use crate::event::envelope::{Batch, Envelope};

/// Adds a link to a W3C `traceparent` to a span.
pub type Linker = fn(&Span, &str);

static LINKER: OnceLock<Linker> = OnceLock::new();

/// The maximum number of links of a span; a batch may have hundreds of causes.
const MAX_LINKS: usize = 32;

/// Installs the process-wide linker. Later calls have no effect.
pub fn link_with(linker: Linker) {
    LINKER.get_or_init(|| linker);
}

/// Links the span of a delivery to the causes of its events.
pub fn link(span: &Span, events: &Batch) {
    if let Some(linker) = LINKER.get()
        && !span.is_disabled()
    {
        causes(events).for_each(|cause| linker(span, cause));
    }
}

/// Returns the trace contexts of these events, once for adjacent events that share one, such as the events of one
/// command.
fn causes(events: &Batch) -> impl Iterator<Item = &str> {
    let same = |one: &Arc<Envelope>, next: &Arc<Envelope>| one.metadata.trace_context == next.metadata.trace_context;
    let runs = events.chunk_by(same);
    runs.filter_map(|run| run.first()?.metadata.trace_context.as_deref()).take(MAX_LINKS)
}
