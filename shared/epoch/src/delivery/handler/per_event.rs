//! Handlers of single events.

use async_trait::async_trait;

use super::event_handler::EventHandler;
use crate::event::envelope::{Batch, Envelope};

/// A projection or a saga that handles one event at a time.
///
/// Simpler to write than an [`EventHandler`], and slower where a batch could be written by one statement. Wrap it in
/// [`PerEvent`].
#[async_trait]
pub trait PerEventHandler<Tx: ?Sized + Send>: Send + Sync + 'static {
    /// The reasons for a failure.
    type Error: std::error::Error + Send + Sync + 'static;

    /// See [`EventHandler::name`].
    fn name(&self) -> &'static str;

    /// See [`EventHandler::aggregates`].
    fn aggregates(&self) -> &'static [&'static str];

    /// See [`EventHandler::allows_fast_path`].
    fn allows_fast_path(&self) -> bool {
        true
    }

    /// See [`EventHandler::tables`].
    fn tables(&self) -> &'static [&'static str] {
        &[]
    }

    /// See [`EventHandler::also_writes`].
    fn also_writes(&self) -> &'static [&'static str] {
        &[]
    }

    /// See [`EventHandler::revision`].
    fn revision(&self) -> u32 {
        1
    }

    /// Applies one event.
    ///
    /// # Errors
    /// The handler's own error; the transaction is rolled back, including earlier events of the batch.
    async fn handle_one(&self, tx: &mut Tx, event: &Envelope) -> Result<(), Self::Error>;
}

/// Makes an [`EventHandler`] of a [`PerEventHandler`].
pub struct PerEvent<H>(pub H);

#[async_trait]
impl<Tx: ?Sized + Send + 'static, H: PerEventHandler<Tx>> EventHandler<Tx> for PerEvent<H> {
    type Error = H::Error;

    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn aggregates(&self) -> &'static [&'static str] {
        self.0.aggregates()
    }

    fn allows_fast_path(&self) -> bool {
        self.0.allows_fast_path()
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
