//! Links from deliveries to the causes of their events.

use std::sync::{Arc, Mutex};

use epoch::{CommandContext, Envelope, Position, Repository, memory::MemoryStore, store::Streamer};
use futures::TryStreamExt;
use tracing::{
    Event, Metadata, Span, Subscriber,
    span::{Attributes, Id, Record},
};
use uuid::Uuid;

use crate::counter::{Counter, CounterCommand};

static LINKS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Enables all spans.
struct EnablingSubscriber;

impl Subscriber for EnablingSubscriber {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, _event: &Event<'_>) {}

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

#[tokio::test]
async fn enabled_span_is_linked_once_per_adjacent_cause() {
    let store = MemoryStore::new();
    let counters = Repository::<Counter, _>::new(store.clone());
    for _ in 0..3 {
        counters.execute(Uuid::now_v7(), &CounterCommand::Count(1), &CommandContext::new()).await.unwrap();
    }
    let events: Vec<Envelope> = store.stream_all(&[], Position::START).try_collect().await.unwrap();
    let caused = |causes: [Option<&str>; 3]| -> Vec<Arc<Envelope>> {
        let events = events.iter().cloned().zip(causes);
        let caused = events.map(|(mut event, cause)| {
            event.metadata.trace_context = cause.map(Arc::from);
            Arc::new(event)
        });
        caused.collect()
    };
    epoch::trace::link_with(|_, cause| LINKS.lock().unwrap().push(cause.to_owned()));
    epoch::trace::link(&Span::none(), &caused([Some("disabled span"); 3]));
    tracing::subscriber::with_default(EnablingSubscriber, || {
        let span = tracing::debug_span!("deliver");
        epoch::trace::link(&span, &caused([Some("one"), Some("one"), Some("another")]));
        epoch::trace::link(&span, &caused([None, Some("third"), None]));
    });
    assert_eq!(*LINKS.lock().unwrap(), ["one", "another", "third"]);
}
