//! Parking an aggregate after its handler has failed.
//!
//! A failing event stops only its own aggregate: after the last attempt the event becomes a dead letter, later events
//! of the aggregate queue after it, and all other aggregates continue.

use std::sync::Arc;

use epoch::{
    Batch,
    gate::{DeliverySource, ParkReason},
    handler::DeliveryCounts,
    retry::RetryPolicy,
};

use crate::delivery::{
    cursors, dead_letter_queue,
    error::HandlerError,
    gate::{self, Judgement},
    runner::HandlerRunner,
};

/// Repeats the delivery of one event as often as `retry` allows, then parks its aggregate. `error` is the error of the
/// first attempt.
///
/// # Errors
/// A transient error, which parks nothing.
pub(crate) async fn retry_then_park(
    runner: &HandlerRunner,
    retry: RetryPolicy,
    event: &Batch,
    mut error: HandlerError,
) -> Result<DeliveryCounts, HandlerError> {
    for failed in 1..retry.attempts {
        tokio::time::sleep(retry.wait(failed)).await;
        match gate::deliver(runner, event, DeliverySource::Bus).await {
            Ok(delivered) => return Ok(delivered),
            Err(latest) if latest.is_transient() => return Err(latest),
            Err(latest) => error = latest,
        }
    }
    park(runner, event, &error).await
}

async fn park(runner: &HandlerRunner, event: &Batch, error: &HandlerError) -> Result<DeliveryCounts, HandlerError> {
    let generation = &runner.generation().await?;
    let mut tx = runner.store.begin().await?;
    let mut locked = cursors::lock(tx.connection(), generation, &cursors::streams(event)).await?;
    // Judged again under the lock: another process may have applied the event or parked its aggregate.
    let Judgement { apply: failed, queue, mut delivered } =
        gate::judge(&mut locked.clone(), event, DeliverySource::Bus);
    dead_letter_queue::enqueue(tx.connection(), &generation.key, &queue, None).await?;
    if !failed.is_empty() {
        dead_letter_queue::enqueue(tx.connection(), &generation.key, &failed, Some(&error.to_string())).await?;
        for cursor in locked.values_mut() {
            cursor.parked = Some(ParkReason::Failed);
        }
        cursors::write(tx.connection(), generation, locked.iter()).await?;
        delivered = DeliveryCounts { queued: 1, ..DeliveryCounts::default() };
    }
    drop(tx.commit().await?);
    if let Some(event) = failed.first() {
        metrics::counter!("epoch_parked_total", "subscription" => Arc::clone(&runner.name)).increment(1);
        tracing::error!(
            subscription = &*runner.name, aggregate = %event.aggregate, id = %event.aggregate_id,
            version = %event.version, event = %event.event_name, %error, "aggregate parked"
        );
    }
    Ok(delivered)
}
