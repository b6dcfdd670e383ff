//! Replay: delivering the store's own events to a subscription.
//!
//! A new subscription needs the events from before its start, a lagging one the events that it missed. Replay uses the
//! same gate as the other delivery sources, so it can run at any time and any number of times.

use std::sync::Arc;

use epoch::{
    Envelope, Position,
    gate::DeliverySource,
    handler::{DeliverError, Subscription},
};

use crate::store::pg_store::PgStore;

/// How many events are delivered in one batch.
const BATCH: i64 = 500;

/// Delivers the store's events after `from` to a subscription, up to the end of the log. Returns the last position.
///
/// # Errors
/// [`DeliverError`] when the store can't be read or a batch can't be delivered. Replay can restart from any earlier
/// position.
pub async fn replay(
    store: &PgStore,
    subscription: &dyn Subscription,
    from: Position,
) -> Result<Position, DeliverError> {
    let mut reached = from;
    loop {
        let page = store.page(subscription.aggregates(), reached, BATCH).await.map_err(|error| DeliverError {
            subscription: subscription.name().to_owned(),
            detail: error.to_string(),
        })?;
        let Some(last) = page.last() else { return Ok(reached) };
        let next = last.position;
        let events: Vec<Arc<Envelope>> = page.into_iter().map(Arc::new).collect();
        subscription.deliver(&events, DeliverySource::Replay).await?;
        reached = next;
    }
}
