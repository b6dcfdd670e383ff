//! The third way in: from the store itself.
//!
//! The problem: a new subscription needs what happened before it was there, and a parked one what it missed.
//! The invariant: replay goes through the same gate as the other ways, so that it can run at any time, as often as one likes.

use std::sync::Arc;

use epoch::{
    Envelope, Position,
    gate::Way,
    handler::{DeliverError, Subscription},
};

use crate::store::pg_store::PgStore;

/// Events brought through the gate at once.
const BATCH: i64 = 500;

/// Delivers the store's own events after `from` to a subscription, up to the end as it is now; gives the last position.
///
/// # Errors
/// [`DeliverError`] when the store can't be read or the gate can't take events; go on from any earlier position.
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
        subscription.deliver(&events, Way::Replay).await?;
        reached = next;
    }
}
