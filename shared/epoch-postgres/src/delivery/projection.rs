//! Projections: handlers that maintain tables of their own, so that a rebuild can recompute the tables from events.

use async_trait::async_trait;
use epoch::{Batch, handler::EventHandler};

use crate::{delivery::error::HandlerError, transaction::pg_tx::PgTx};

/// Maintains tables from the events of some aggregates. Wrap it in a [`ProjectionHandler`] to subscribe it.
#[async_trait]
pub trait Projection: Send + Sync + 'static {
    /// The subscription's name, see [`EventHandler::name`].
    const NAME: &'static str;
    /// The names of the aggregates that the projection subscribes to.
    const AGGREGATES: &'static [&'static str];
    /// The tables that the projection alone fills, see [`EventHandler::tables`].
    const TABLES: &'static [&'static str];

    /// Applies a batch, in which each aggregate's events are in version order.
    ///
    /// # Errors
    /// [`HandlerError`]; the transaction is rolled back.
    async fn apply(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError>;
}

/// Makes an [`EventHandler`] of a [`Projection`].
pub struct ProjectionHandler<P>(pub P);

#[async_trait]
impl<P: Projection> EventHandler<PgTx> for ProjectionHandler<P> {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        P::NAME
    }

    fn aggregates(&self) -> &'static [&'static str] {
        P::AGGREGATES
    }

    fn tables(&self) -> &'static [&'static str] {
        P::TABLES
    }

    async fn handle(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        self.0.apply(tx, events).await
    }
}
