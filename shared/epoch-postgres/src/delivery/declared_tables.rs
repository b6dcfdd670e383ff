//! What handlers write, held against what they say they write.
//!
//! The problem: a rebuild makes anew the tables that a handler names. One that it fills without naming it would get the same
//! once more, and one that another handler fills too would lose what that one wrote, silently, when the generations are swapped.
//!
//! The invariant: a batch that wrote a table which its handler doesn't name is refused before it commits, in every rebuild and
//! wherever the handler is [watched](Watched); and of handlers that are [checked together](check_tables) none rebuilds what
//! another one writes. What was written is the server's own count for the transaction, so what triggers and cascades write
//! counts as well. It counts nothing where `track_counts` is switched off, without which the server wouldn't vacuum either.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use epoch::{Batch, handler::EventHandler};
use sqlx::{PgConnection, Row};

use crate::{
    delivery::handler::{HandlerError, PgHandler},
    transaction::pg_tx::PgTx,
};

/// Epoch's own tables, which handlers write by its means only.
const EPOCH: [&str; 11] = [
    "events",
    "commands",
    "cursors",
    "dead_letters",
    "relays",
    "states",
    "snapshots",
    "sagas",
    "saga_timers",
    "saga_effects",
    "generations",
];

/// A connection keeps its figures a while longer than a transaction; what is new is what has grown.
const WRITTEN: &str = "select c.oid::bigint, w.rows, format('%I.%I', s.nspname, c.relname) \
     from pg_class c join pg_namespace s on s.oid = c.relnamespace, lateral (select pg_stat_get_xact_tuples_inserted(c.oid) \
         + pg_stat_get_xact_tuples_updated(c.oid) + pg_stat_get_xact_tuples_deleted(c.oid) as rows) w \
     where c.relkind = 'r' and s.nspname !~ '^pg_' and s.nspname <> 'information_schema' and w.rows > 0 \
     and c.oid not in (select to_regclass(quote_ident(n.name))::oid from unnest($1::text[]) n (name) \
         where to_regclass(quote_ident(n.name)) is not null)";

/// Whether a rebuild can make anew all that the handler writes.
pub(crate) fn rebuildable(handler: &dyn PgHandler) -> bool {
    !handler.tables().is_empty() && handler.also_writes().is_empty()
}

/// Two handlers of which one rebuilds what the other writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{owner} names {table} as its own, but {writer} writes it too: a rebuild of the one would lose what the other wrote"
)]
pub struct SharedTable {
    /// The table.
    pub table: &'static str,
    /// Whose it would be.
    pub owner: &'static str,
    /// Who else writes it.
    pub writer: &'static str,
}

/// Checks the handlers of one schema against each other.
///
/// # Errors
/// [`SharedTable`] when one of them rebuilds what another one writes.
pub fn check_tables(handlers: &[Arc<dyn PgHandler>]) -> Result<(), SharedTable> {
    for (place, owner) in handlers.iter().enumerate() {
        for table in owner.tables() {
            for (other, writer) in handlers.iter().enumerate() {
                if place != other && writer.tables().iter().chain(writer.also_writes()).any(|written| written == table)
                {
                    return Err(SharedTable { table, owner: owner.name(), writer: writer.name() });
                }
            }
        }
    }
    Ok(())
}

/// A handler whose writes are watched. It costs two questions a batch, so a rebuild does it always, and others where time
/// matters less than being told: in tests.
pub struct Watched {
    handler: Arc<dyn PgHandler>,
    undeclared: OnceLock<String>,
}

impl Watched {
    /// Watches `handler`.
    #[must_use]
    pub fn new(handler: Arc<dyn PgHandler>) -> Arc<Self> {
        Arc::new(Self { handler, undeclared: OnceLock::new() })
    }

    /// Tables that it tried to write without naming them, if it did.
    pub(crate) fn undeclared(&self) -> Option<&str> {
        self.undeclared.get().map(String::as_str)
    }

    async fn written(&self, connection: &mut PgConnection) -> Result<HashMap<i64, (i64, String)>, sqlx::Error> {
        let named: Vec<&str> = [self.handler.tables(), self.handler.also_writes(), &EPOCH].concat();
        let rows = sqlx::query(WRITTEN).bind(named).fetch_all(connection).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?)))).collect()
    }
}

#[async_trait]
impl EventHandler<PgTx> for Watched {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        self.handler.name()
    }

    fn aggregates(&self) -> &'static [&'static str] {
        self.handler.aggregates()
    }

    fn locally(&self) -> bool {
        self.handler.locally()
    }

    fn tables(&self) -> &'static [&'static str] {
        self.handler.tables()
    }

    fn also_writes(&self) -> &'static [&'static str] {
        self.handler.also_writes()
    }

    fn revision(&self) -> u32 {
        self.handler.revision()
    }

    async fn handle(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        let before = self.written(tx.connection()).await?;
        self.handler.handle(tx, events).await?;
        let after = self.written(tx.connection()).await?;
        let mut undeclared: Vec<String> = Vec::new();
        for (table, (rows, name)) in after {
            if before.get(&table).is_none_or(|(earlier, _)| rows > *earlier) {
                undeclared.push(name);
            }
        }
        if undeclared.is_empty() {
            return Ok(());
        }
        undeclared.sort_unstable();
        let tables = undeclared.join(", ");
        let _ = self.undeclared.set(tables.clone());
        tracing::error!(subscription = self.name(), tables, "a handler writes tables that it doesn't name");
        Err(HandlerError::Undeclared { tables })
    }
}
