//! The delivery gate on Postgres: the handler, its cursors and its effects in one transaction.
//!
//! The rule is that of [`epoch::gate`]. On Postgres:
//! - The handler's writes and the cursors' moves commit together or not at all.
//! - Commits of the fast path do not wait for the disk. After a server crash the bus delivers the events again. The bus
//!   learns that events are duplicates only after their application is on disk, which a durable commit ensures.

use std::{collections::HashMap, sync::Arc};

use epoch::{
    Batch, Envelope,
    envelope::StreamKey,
    gate::{Cursor, DeliverySource, ParkReason, Verdict},
    handler::DeliveryCounts,
    retry::RetryPolicy,
};

use crate::{
    delivery::{
        cursors::{self, FollowOutcome},
        dead_letter_queue,
        error::HandlerError,
        generations::Generation,
        release::release,
        runner::HandlerRunner,
    },
    transaction::{durability::Durability, pg_tx::PgTx},
};

/// Delivers a batch, repeating the transaction after conflicts. Other errors are returned.
pub(crate) async fn deliver(
    runner: &HandlerRunner,
    events: &Batch,
    source: DeliverySource,
) -> Result<DeliveryCounts, HandlerError> {
    let mut failed = 0;
    loop {
        match deliver_once(runner, events, source).await {
            Err(error) if error.is_conflict() && failed + 1 < RetryPolicy::CONFLICT.attempts => {
                failed += 1;
                runner.forget_generation();
                tokio::time::sleep(RetryPolicy::CONFLICT.wait(failed)).await;
            }
            result => return result,
        }
    }
}

async fn deliver_once(
    runner: &HandlerRunner,
    events: &Batch,
    source: DeliverySource,
) -> Result<DeliveryCounts, HandlerError> {
    let generation = &runner.generation().await?;
    match begin(runner, generation, events, source).await? {
        Begun::Followed(tx) => apply_followed(runner, tx, events).await,
        Begun::Unlocked(tx) => deliver_locked(runner, generation, tx, events, source).await,
    }
}

/// A transaction at its begin.
enum Begun {
    /// All events were next, and the cursors have moved past them.
    Followed(PgTx),
    /// Some events are not next, and the cursors are not locked yet.
    Unlocked(PgTx),
}

/// Opens the transaction. If all events are next, the cursors move with the first statement: no lock and no judgement
/// is needed then. On the fast path, that statement is sent together with `begin`.
async fn begin(
    runner: &HandlerRunner,
    generation: &Generation,
    events: &Batch,
    source: DeliverySource,
) -> Result<Begun, HandlerError> {
    let is_fast_path = source == DeliverySource::FastPath;
    let durability = if is_fast_path { Durability::Deferred } else { Durability::AtCommit };
    if is_fast_path && let Some(follow) = cursors::follow_next_statement(generation, events) {
        return match runner.store.begin_deferred_with(&follow).await {
            Ok(tx) => Ok(Begun::Followed(tx)),
            Err(error) if cursors::is_not_next(&error) => {
                Ok(Begun::Unlocked(runner.store.begin_with(durability).await?))
            }
            Err(error) => Err(error.into()),
        };
    }
    let mut tx = runner.store.begin_with(durability).await?;
    match cursors::follow(tx.connection(), generation, events).await? {
        FollowOutcome::All => Ok(Begun::Followed(tx)),
        FollowOutcome::None => Ok(Begun::Unlocked(tx)),
        FollowOutcome::Some => {
            tx.rollback().await?;
            Ok(Begun::Unlocked(runner.store.begin_with(durability).await?))
        }
    }
}

/// Applies a batch after its cursors have moved.
async fn apply_followed(runner: &HandlerRunner, mut tx: PgTx, events: &Batch) -> Result<DeliveryCounts, HandlerError> {
    runner.apply(&mut tx, events).await?;
    drop(tx.commit().await?);
    runner.progress.notify();
    Ok(DeliveryCounts { applied: events.len(), ..DeliveryCounts::default() })
}

/// Locks the cursors, judges each event, applies or queues it, and writes the changed cursors.
async fn deliver_locked(
    runner: &HandlerRunner,
    generation: &Generation,
    mut tx: PgTx,
    events: &Batch,
    source: DeliverySource,
) -> Result<DeliveryCounts, HandlerError> {
    let mut locked = cursors::lock(tx.connection(), generation, &cursors::streams(events)).await?;
    let before = locked.clone();
    let Judgement { apply, queue, mut delivered } = judge(&mut locked, events, source);
    if apply.is_empty() && queue.is_empty() {
        // Locking the cursors has written to the write-ahead log. This commit therefore flushes the earlier, deferred
        // commits of the fast path, and the events can be reported as duplicates.
        drop(tx.commit().await?);
    } else {
        dead_letter_queue::enqueue(tx.connection(), &generation.key, &queue, None).await?;
        runner.apply(&mut tx, &apply).await?;
        let changed = locked.iter().filter(|(stream, cursor)| before.get(stream) != Some(cursor));
        cursors::write(tx.connection(), generation, changed).await?;
        // The receipt of a saga's appends is not awaited: they may be delivered to this same subscription.
        drop(tx.commit().await?);
        runner.progress.notify();
    }
    for (stream, _) in locked.iter().filter(|(_, cursor)| cursor.parked == Some(ParkReason::Gap)) {
        delivered.applied += close_gap(runner, stream).await?;
    }
    Ok(delivered)
}

/// Applies the queued events of an aggregate that waited for missing ones, as far as they are now consecutive.
async fn close_gap(runner: &HandlerRunner, stream: &StreamKey) -> Result<usize, HandlerError> {
    match release(runner, stream).await {
        // The error is stored with the event, and the aggregate stays parked.
        Err(error) if !error.is_transient() => Ok(0),
        result => result,
    }
}

/// The verdicts on a batch.
pub(super) struct Judgement {
    pub(super) apply: Vec<Arc<Envelope>>,
    pub(super) queue: Vec<Arc<Envelope>>,
    pub(super) delivered: DeliveryCounts,
}

/// Judges each event by its cursor, and moves the cursor.
pub(super) fn judge(cursors: &mut HashMap<StreamKey, Cursor>, events: &Batch, source: DeliverySource) -> Judgement {
    let mut judgement = Judgement { apply: Vec::new(), queue: Vec::new(), delivered: DeliveryCounts::default() };
    for event in events {
        let cursor = cursors.entry(event.stream()).or_default();
        match cursor.judge(event.version, source) {
            Verdict::Apply => judgement.apply.push(Arc::clone(event)),
            Verdict::Queue => judgement.queue.push(Arc::clone(event)),
            Verdict::Duplicate => judgement.delivered.duplicate += 1,
            Verdict::Gap => judgement.delivered.gap += 1,
        }
    }
    judgement.delivered.applied = judgement.apply.len();
    judgement.delivered.queued = judgement.queue.len();
    judgement
}
