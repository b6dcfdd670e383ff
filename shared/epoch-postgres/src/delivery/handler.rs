//! Handlers on Postgres: projections and sagas.
//!
//! A handler may write any table and command aggregates of its service. It writes only through the [`PgTx`] that also
//! moves its cursors, so its effects and its progress commit together.

use epoch::handler::EventHandler;

use crate::{delivery::error::HandlerError, transaction::pg_tx::PgTx};

/// The handler of a [`PgSubscription`](crate::PgSubscription): any [`EventHandler`] over a [`PgTx`].
pub trait PgHandler: EventHandler<PgTx, Error = HandlerError> {}

impl<H: EventHandler<PgTx, Error = HandlerError>> PgHandler for H {}
