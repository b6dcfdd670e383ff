//! Projections: handlers that maintain tables of their own, so that the tables can be rebuilt from events.

use async_trait::async_trait;
use epoch::{Batch, handler::EventHandler};
use epoch_postgres::{HandlerError, PgTx};

/// Maintains tables from the events of some aggregates.
#[async_trait]
pub(crate) trait Projection: Send + Sync + 'static {
    /// Name of the subscription.
    const NAME: &'static str;
    const AGGREGATES: &'static [&'static str];
    const TABLES: &'static [&'static str];

    /// Applies a batch; the events of each aggregate are in version order.
    async fn apply(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError>;
}

/// Runs a [`Projection`] as an event handler.
pub(crate) struct ProjectionHandler<P>(pub(crate) P);

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
