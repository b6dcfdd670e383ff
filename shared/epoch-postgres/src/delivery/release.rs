//! Releasing the queue of a parked aggregate: its events are applied in version order, page by page.

use std::sync::Arc;

use epoch::{
    Envelope,
    envelope::StreamKey,
    gate::{Cursor, ParkReason},
};

use crate::delivery::{cursors, dead_letter_queue, error::HandlerError, runner::HandlerRunner};

/// How many queued events one transaction releases.
const PAGE: i64 = 100;

/// Applies queued events as long as they directly follow the cursor, and unparks the aggregate when none is left.
/// Returns how many were applied.
///
/// # Errors
/// The handler's error on the first event that it can't apply; the aggregate stays parked there.
pub(crate) async fn release(runner: &HandlerRunner, stream: &StreamKey) -> Result<usize, HandlerError> {
    let mut applied = 0;
    loop {
        match release_page(runner, stream, PAGE).await {
            Ok(page) => {
                applied += page.applied;
                if !page.may_have_more {
                    return Ok(applied);
                }
            }
            Err(error) if error.is_transient() => return Err(error),
            // One event of the page fails. Release one by one up to it, and record the error there.
            Err(_) => {
                return match release_one_by_one(runner, stream).await {
                    Ok(released) => Ok(applied + released),
                    Err(error) => {
                        record_failure(runner, stream, &error).await?;
                        Err(error)
                    }
                };
            }
        }
    }
}

async fn release_one_by_one(runner: &HandlerRunner, stream: &StreamKey) -> Result<usize, HandlerError> {
    let mut applied = 0;
    loop {
        let page = release_page(runner, stream, 1).await?;
        applied += page.applied;
        if !page.may_have_more {
            return Ok(applied);
        }
    }
}

struct ReleasedPage {
    applied: usize,
    may_have_more: bool,
}

/// Releases up to `limit` queued events in one transaction.
async fn release_page(runner: &HandlerRunner, stream: &StreamKey, limit: i64) -> Result<ReleasedPage, HandlerError> {
    let generation = &runner.generation().await?;
    let key = &*generation.key;
    let mut tx = runner.store.begin().await?;
    let cursor = cursors::lock_one(tx.connection(), generation, stream).await?;
    let queued = dead_letter_queue::queued(tx.connection(), key, stream, cursor.version, limit).await?;
    let mut version = cursor.version;
    let mut consecutive: Vec<Arc<Envelope>> = Vec::with_capacity(queued.len());
    for event in &queued {
        if event.version != version.next() {
            break;
        }
        version = event.version;
        consecutive.push(Arc::clone(event));
    }
    let is_full_page = i64::try_from(queued.len()).is_ok_and(|count| count == limit);
    let parked = match (queued.len() > consecutive.len(), is_full_page) {
        (true, _) => Some(ParkReason::Gap),
        (false, true) => cursor.parked,
        (false, false) => None,
    };
    runner.apply(&mut tx, &consecutive).await?;
    dead_letter_queue::delete_applied(tx.connection(), key, stream, version).await?;
    cursors::write(tx.connection(), generation, std::iter::once((stream, &Cursor { version, parked }))).await?;
    drop(tx.commit().await?);
    runner.progress.notify();
    Ok(ReleasedPage { applied: consecutive.len(), may_have_more: is_full_page && !consecutive.is_empty() })
}

/// Stores the handler's error with the first queued event; the aggregate is then parked as failed.
async fn record_failure(runner: &HandlerRunner, stream: &StreamKey, error: &HandlerError) -> Result<(), HandlerError> {
    let generation = &runner.generation().await?;
    let mut tx = runner.store.begin().await?;
    let cursor = cursors::lock_one(tx.connection(), generation, stream).await?;
    let failed = cursor.version.next();
    dead_letter_queue::record_failure(tx.connection(), &generation.key, stream, failed, error).await?;
    let parked = Cursor { parked: Some(ParkReason::Failed), ..cursor };
    cursors::write(tx.connection(), generation, std::iter::once((stream, &parked))).await?;
    drop(tx.commit().await?);
    Ok(())
}
