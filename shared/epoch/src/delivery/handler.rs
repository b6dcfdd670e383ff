//! Those who react to events.
//!
//! The problem: one event may change any number of rows in any number of tables, and a handler must not care which way
//! the event came or how often.
//!
//! The invariant: a handler sees each aggregate's events once and in order, inside the transaction that also moves the
//! subscription's cursors. Its effects and its progress commit together or not at all.

use async_trait::async_trait;

use crate::{
    envelope::{Batch, Envelope},
    gate::Way,
};

/// A projection or a saga: what one subscription does with events, inside a transaction of type `Tx`.
#[async_trait]
pub trait EventHandler<Tx: ?Sized + Send>: Send + Sync + 'static {
    /// Why it can fail.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The subscription's name, unique in its service; it names the cursors and the consumer group.
    fn name(&self) -> &'static str;

    /// The aggregates it listens to.
    fn aggregates(&self) -> &'static [&'static str];

    /// Whether it may also run locally right after commit. A handler with effects outside the transaction must say no.
    fn locally(&self) -> bool {
        true
    }

    /// The tables that it alone fills, from events alone: those that a rebuild makes anew. None when it can't be rebuilt, as a
    /// saga can't.
    fn tables(&self) -> &'static [&'static str] {
        &[]
    }

    /// The tables that it writes beside those: others write them too, or what lies in them doesn't follow from events alone. A
    /// handler that has such can't be rebuilt, since they would get the same once more.
    fn also_writes(&self) -> &'static [&'static str] {
        &[]
    }

    /// Counts the changes of what it makes of the same events. Tables made by one revision are not touched by another: after a
    /// change here, the subscription waits for its rebuild.
    fn revision(&self) -> u32 {
        1
    }

    /// Applies a batch; each aggregate's events are in version order.
    ///
    /// # Errors
    /// The handler's own; the transaction is rolled back.
    async fn handle(&self, tx: &mut Tx, events: &Batch) -> Result<(), Self::Error>;
}

/// A projection or a saga that takes one event at a time: simpler to write, and slower where a batch could be written at once.
/// [`Each`] makes an [`EventHandler`] of it.
#[async_trait]
pub trait EachEvent<Tx: ?Sized + Send>: Send + Sync + 'static {
    /// Why it can fail.
    type Error: std::error::Error + Send + Sync + 'static;

    /// As [`EventHandler::name`].
    fn name(&self) -> &'static str;

    /// As [`EventHandler::aggregates`].
    fn aggregates(&self) -> &'static [&'static str];

    /// As [`EventHandler::locally`].
    fn locally(&self) -> bool {
        true
    }

    /// As [`EventHandler::tables`].
    fn tables(&self) -> &'static [&'static str] {
        &[]
    }

    /// As [`EventHandler::also_writes`].
    fn also_writes(&self) -> &'static [&'static str] {
        &[]
    }

    /// As [`EventHandler::revision`].
    fn revision(&self) -> u32 {
        1
    }

    /// Applies one event.
    ///
    /// # Errors
    /// The handler's own; the transaction is rolled back, with the events before it.
    async fn handle_one(&self, tx: &mut Tx, event: &Envelope) -> Result<(), Self::Error>;
}

/// Hands a batch over event by event.
pub struct Each<H>(pub H);

#[async_trait]
impl<Tx: ?Sized + Send + 'static, H: EachEvent<Tx>> EventHandler<Tx> for Each<H> {
    type Error = H::Error;

    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn aggregates(&self) -> &'static [&'static str] {
        self.0.aggregates()
    }

    fn locally(&self) -> bool {
        self.0.locally()
    }

    fn tables(&self) -> &'static [&'static str] {
        self.0.tables()
    }

    fn also_writes(&self) -> &'static [&'static str] {
        self.0.also_writes()
    }

    fn revision(&self) -> u32 {
        self.0.revision()
    }

    async fn handle(&self, tx: &mut Tx, events: &Batch) -> Result<(), H::Error> {
        for event in events {
            self.0.handle_one(tx, event).await?;
        }
        Ok(())
    }
}

/// What became of a batch at the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delivered {
    /// Events applied now.
    pub applied: usize,
    /// Events dropped because they had been applied before.
    pub duplicate: usize,
    /// Events left to another way because one before them was missing.
    pub gap: usize,
    /// Events kept in the queue of a parked aggregate.
    pub queued: usize,
}

/// The batch could not be brought through the gate at all; deliver it again.
#[derive(Debug, Clone, thiserror::Error)]
#[error("subscription {subscription} can't take events now: {detail}")]
pub struct DeliverError {
    /// Whose gate.
    pub subscription: String,
    /// What was seen.
    pub detail: String,
}

/// A handler behind its gate: what buses deliver to.
#[async_trait]
pub trait Subscription: Send + Sync + 'static {
    /// The subscription's name.
    fn name(&self) -> &str;

    /// The aggregates it listens to.
    fn aggregates(&self) -> &'static [&'static str];

    /// Brings a batch through the gate.
    ///
    /// # Errors
    /// [`DeliverError`] when nothing was applied and the same batch must come again. A handler that fails for good is not an
    /// error here: its aggregate is parked.
    async fn deliver(&self, events: &Batch, way: Way) -> Result<Delivered, DeliverError>;
}
