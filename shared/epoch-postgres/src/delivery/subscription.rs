//! The delivery gate on Postgres: a handler, its cursors and its effects in one transaction.
//!
//! The problem and the rule are those of [`epoch::gate`]. The invariants kept here:
//! - what a handler does and the cursor's move commit together or not at all;
//! - a handler that fails holds back that aggregate only: its events queue in order as dead letters, others go on;
//! - faults that pass by themselves never park anything; the batch comes again;
//! - the local way's commits don't wait for the disk. Should the server crash, the bus brings the events again: it may only be told that
//!   they were applied before when that is on disk, which a commit after them makes sure of.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use epoch::{
    Batch, Envelope,
    envelope::StreamKey,
    gate::{Cursor, Parked, Verdict, Way},
    handler::{DeliverError, Delivered, Subscription},
    retry::RetryPolicy,
};
use futures::FutureExt;
use tracing::Instrument;

use crate::{
    delivery::cursors,
    delivery::cursors::Followed,
    delivery::dead_letters,
    delivery::generations,
    delivery::generations::Generation,
    delivery::handler::{HandlerError, PgHandler},
    delivery::progress::Progress,
    store::pg_store::PgStore,
    transaction::pg_tx::{Durability, PgTx},
};

/// A handler behind its gate.
#[derive(Clone)]
pub struct PgSubscription {
    pub(crate) handler: Arc<dyn PgHandler>,
    pub(crate) store: PgStore,
    pub(crate) progress: Progress,
    name: Arc<str>,
    /// What it works for, as far as it knows; the gate checks it in each transaction.
    generation: Arc<Mutex<Option<Generation>>>,
    retry: RetryPolicy,
    pub(crate) deadline: Duration,
}

impl PgSubscription {
    /// A subscription whose cursors lie in `store`'s schema. `progress` wakes those who wait for it in this process.
    pub fn new(handler: Arc<dyn PgHandler>, store: PgStore, progress: Progress) -> Self {
        let name = handler.name().into();
        let (retry, deadline) = (RetryPolicy::HANDLER, Duration::from_secs(30));
        Self { handler, store, progress, name, generation: Arc::default(), retry, deadline }
    }

    /// The same for a generation that isn't in use yet; `store` sees its tables first.
    pub(crate) fn of_generation(mut self, store: PgStore, generation: Generation) -> Self {
        self.store = store;
        self.name = Arc::clone(&generation.key);
        self.generation = Arc::new(Mutex::new(Some(generation)));
        self
    }

    /// What it works for.
    pub(crate) async fn generation(&self) -> Result<Generation, HandlerError> {
        if let Some(known) = &*self.generation.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(known.clone());
        }
        let serving = generations::serving(self.store.pool(), &*self.handler, self.deadline).await?;
        *self.generation.lock().unwrap_or_else(PoisonError::into_inner) = Some(serving.clone());
        Ok(serving)
    }

    /// What its cursors and dead letters are kept under now, whatever revision made them.
    pub(crate) async fn key(&self) -> Result<String, sqlx::Error> {
        if *self.name == *self.handler.name() {
            generations::key_in_use(self.store.pool(), &self.name).await
        } else {
            Ok(self.name.to_string())
        }
    }

    /// A race may have been a swap: whoever works for the generation in use asks again which it is.
    fn forget_generation(&self) {
        if *self.name == *self.handler.name() {
            *self.generation.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// The same with another number of attempts before an aggregate is parked, and other waits.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// The same with another deadline for the handler.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Whether committed events may be handed to it directly.
    #[must_use]
    pub fn locally(&self) -> bool {
        self.handler.locally()
    }

    /// One transaction: lock, judge, apply, move; in one step where all events are next.
    async fn gate(&self, events: &Batch, way: Way) -> Result<Delivered, HandlerError> {
        let generation = &self.generation().await?;
        let durability = if way == Way::Local { Durability::Soon } else { Durability::AtCommit };
        let mut tx = match cursors::follow_next(generation, events).filter(|_| way == Way::Local) {
            Some(follow) => match self.store.begin_soon_with(&follow).await {
                Ok(tx) => return self.all_next(tx, events).await,
                Err(error) if cursors::is_not_next(&error) => self.store.begin_with(durability).await?,
                Err(error) => return Err(error.into()),
            },
            None => {
                let mut tx = self.store.begin_with(durability).await?;
                match cursors::follow(tx.connection(), generation, events).await? {
                    Followed::All => return self.all_next(tx, events).await,
                    Followed::None => tx,
                    Followed::Some => {
                        tx.rollback().await?;
                        self.store.begin_with(durability).await?
                    }
                }
            }
        };
        let mut locked = cursors::lock(tx.connection(), generation, &cursors::streams(events)).await?;
        let before = locked.clone();
        let (apply, queue, mut delivered) = judge(&mut locked, events, way);
        if apply.is_empty() && queue.is_empty() {
            // Locking the cursors has written to the log; so this commit puts on disk what the local way applied before it.
            drop(tx.commit().await?);
        } else {
            dead_letters::queue(tx.connection(), &generation.key, &queue, None).await?;
            self.apply(&mut tx, &apply).await?;
            let moved = locked.iter().filter(|(stream, cursor)| before.get(stream) != Some(cursor));
            cursors::advance(tx.connection(), generation, moved).await?;
            // What a saga appended is not waited for: it may lead back to this very subscription.
            drop(tx.commit().await?);
            self.progress.moved();
        }
        for (stream, _) in locked.iter().filter(|(_, cursor)| cursor.parked == Some(Parked::Gap)) {
            delivered.applied += self.close_gap(stream).await?;
        }
        Ok(delivered)
    }

    /// Applies a batch past which the cursors have moved.
    async fn all_next(&self, mut tx: PgTx, events: &Batch) -> Result<Delivered, HandlerError> {
        self.apply(&mut tx, events).await?;
        drop(tx.commit().await?);
        self.progress.moved();
        Ok(Delivered { applied: events.len(), ..Delivered::default() })
    }

    /// Goes on with an aggregate that waited for missing events, as far as they have come.
    async fn close_gap(&self, stream: &StreamKey) -> Result<usize, HandlerError> {
        match dead_letters::release(self, stream).await {
            // The failure is noted with the event, and the aggregate stays parked.
            Err(error) if !error.is_transient() => Ok(0),
            result => result,
        }
    }

    /// Runs the handler, which may fail, panic or hang.
    pub(crate) async fn apply(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        if events.is_empty() {
            return Ok(());
        }
        let handled = AssertUnwindSafe(self.handler.handle(tx, events)).catch_unwind();
        match tokio::time::timeout(self.deadline, handled).await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => {
                let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let detail = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                Err(HandlerError::Panicked { detail })
            }
            Err(_) => Err(HandlerError::TimedOut { seconds: self.deadline.as_secs() }),
        }
    }

    /// Tries a batch; when the handler fails, tries its aggregates one by one, then their events one by one.
    async fn bring(&self, events: &Batch, way: Way) -> Result<Delivered, HandlerError> {
        let error = match self.gate_retrying(events, way).await {
            Ok(delivered) => return Ok(delivered),
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => error,
        };
        if way == Way::Local {
            tracing::debug!(subscription = self.name(), %error, "left to the bus");
            return Ok(Delivered { gap: events.len(), ..Delivered::default() });
        }
        if events.len() == 1 {
            return self.park_after_retries(events, error).await;
        }
        let mut delivered = Delivered::default();
        for part in split(events) {
            delivered = add(delivered, Box::pin(self.bring(&part, way)).await?);
        }
        Ok(delivered)
    }

    /// Waits out other transactions; anything else is the caller's to judge.
    async fn gate_retrying(&self, events: &Batch, way: Way) -> Result<Delivered, HandlerError> {
        let mut failed = 0;
        loop {
            match self.gate(events, way).await {
                Err(error) if error.is_race() && failed + 1 < RetryPolicy::CONFLICT.attempts => {
                    failed += 1;
                    self.forget_generation();
                    tokio::time::sleep(RetryPolicy::CONFLICT.wait(failed)).await;
                }
                result => return result,
            }
        }
    }

    async fn park_after_retries(&self, event: &Batch, mut error: HandlerError) -> Result<Delivered, HandlerError> {
        for failed in 1..self.retry.attempts {
            tokio::time::sleep(self.retry.wait(failed)).await;
            match self.gate_retrying(event, Way::Bus).await {
                Ok(delivered) => return Ok(delivered),
                Err(again) if again.is_transient() => return Err(again),
                Err(again) => error = again,
            }
        }
        self.park(event, &error).await
    }

    async fn park(&self, event: &Batch, error: &HandlerError) -> Result<Delivered, HandlerError> {
        let generation = &self.generation().await?;
        let mut tx = self.store.begin().await?;
        let mut locked = cursors::lock(tx.connection(), generation, &cursors::streams(event)).await?;
        let (apply, queue, mut delivered) = judge(&mut locked.clone(), event, Way::Bus);
        dead_letters::queue(tx.connection(), &generation.key, &queue, None).await?;
        if !apply.is_empty() {
            dead_letters::queue(tx.connection(), &generation.key, &apply, Some(&error.to_string())).await?;
            for cursor in locked.values_mut() {
                cursor.parked = Some(Parked::Failed);
            }
            cursors::advance(tx.connection(), generation, locked.iter()).await?;
            delivered = Delivered { queued: 1, ..Delivered::default() };
        }
        drop(tx.commit().await?);
        if let Some(event) = apply.first() {
            metrics::counter!("epoch_parked_total", "subscription" => Arc::clone(&self.name)).increment(1);
            tracing::error!(
                subscription = self.name(), aggregate = %event.aggregate, id = %event.aggregate_id,
                version = %event.version, event = %event.event_name, %error, "aggregate parked"
            );
        }
        Ok(delivered)
    }
}

type Judged = (Vec<Arc<Envelope>>, Vec<Arc<Envelope>>, Delivered);

fn judge(cursors: &mut HashMap<StreamKey, Cursor>, events: &Batch, way: Way) -> Judged {
    let (mut apply, mut queue, mut delivered) = (Vec::new(), Vec::new(), Delivered::default());
    for event in events {
        let cursor = cursors.entry(event.stream()).or_default();
        match cursor.judge(event.version, way) {
            Verdict::Apply => apply.push(Arc::clone(event)),
            Verdict::Queue => queue.push(Arc::clone(event)),
            Verdict::Duplicate => delivered.duplicate += 1,
            Verdict::Gap => delivered.gap += 1,
        }
    }
    delivered.applied = apply.len();
    delivered.queued = queue.len();
    (apply, queue, delivered)
}

/// By aggregate when there are several, else event by event; in order.
fn split(events: &Batch) -> Vec<Vec<Arc<Envelope>>> {
    let mut parts: Vec<Vec<Arc<Envelope>>> = Vec::new();
    for event in events {
        match parts.iter_mut().find(|part| part.first().is_some_and(|first| first.aggregate_id == event.aggregate_id)) {
            Some(part) => part.push(Arc::clone(event)),
            None => parts.push(vec![Arc::clone(event)]),
        }
    }
    match parts.as_slice() {
        [_] => events.iter().map(|event| vec![Arc::clone(event)]).collect(),
        _ => parts,
    }
}

fn add(a: Delivered, b: Delivered) -> Delivered {
    Delivered {
        applied: a.applied + b.applied,
        duplicate: a.duplicate + b.duplicate,
        gap: a.gap + b.gap,
        queued: a.queued + b.queued,
    }
}

#[async_trait]
impl Subscription for PgSubscription {
    fn name(&self) -> &str {
        &self.name
    }

    fn aggregates(&self) -> &'static [&'static str] {
        self.handler.aggregates()
    }

    async fn deliver(&self, events: &Batch, way: Way) -> Result<Delivered, DeliverError> {
        if events.is_empty() {
            return Ok(Delivered::default());
        }
        // Here and not only where routes are made, so that no way of wiring can start outside effects before the bus does.
        if way == Way::Local && !self.handler.locally() {
            return Ok(Delivered { gap: events.len(), ..Delivered::default() });
        }
        let delivered = self
            .bring(events, way)
            .instrument(tracing::debug_span!("apply", subscription = self.handler.name(), %way, events = events.len()))
            .await
            .map_err(|error| DeliverError { subscription: self.name().to_owned(), detail: error.to_string() })?;
        let count = |result: &'static str, events: usize| {
            if events > 0 {
                let name = Arc::clone(&self.name);
                metrics::counter!("epoch_delivered_total", "subscription" => name, "way" => way.name(), "result" => result)
                    .increment(events as u64);
            }
        };
        count("applied", delivered.applied);
        count("duplicate", delivered.duplicate);
        count("gap", delivered.gap);
        count("queued", delivered.queued);
        Ok(delivered)
    }
}
