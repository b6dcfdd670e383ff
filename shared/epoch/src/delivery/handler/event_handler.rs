//! Handlers of batches.

use async_trait::async_trait;

use crate::event::envelope::Batch;

/// A projection or a saga: the effects of one subscription, inside a transaction of type `Tx`.
#[async_trait]
pub trait EventHandler<Tx: ?Sized + Send>: Send + Sync + 'static {
    /// The reasons for a failure.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Returns the subscription's name, which is unique in its service. It names the cursors and the consumer group.
    fn name(&self) -> &'static str;

    /// Returns the names of the aggregates that the handler subscribes to.
    fn aggregates(&self) -> &'static [&'static str];

    /// Returns whether the handler may run on the [fast path](crate::fast_path); default: true.
    ///
    /// A handler with effects outside the transaction must return false.
    fn allows_fast_path(&self) -> bool {
        true
    }

    /// Returns the tables that this handler alone fills, and fills from events alone; a rebuild recomputes them.
    ///
    /// Empty (the default) when the handler cannot be rebuilt, as sagas cannot.
    fn tables(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns further tables that the handler writes: other code writes them too, or their content does not follow
    /// from events.
    ///
    /// A handler with such tables cannot be rebuilt, because a rebuild would apply its changes to them a second time.
    fn also_writes(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns the revision of the handler's logic; default: 1. Increase it when the same events produce other rows.
    ///
    /// A handler does not write tables of another revision: after a change, the subscription waits for its rebuild.
    fn revision(&self) -> u32 {
        1
    }

    /// Applies a batch, in which each aggregate's events are in version order.
    ///
    /// # Errors
    /// The handler's own error; the transaction is rolled back.
    async fn handle(&self, tx: &mut Tx, events: &Batch) -> Result<(), Self::Error>;
}
