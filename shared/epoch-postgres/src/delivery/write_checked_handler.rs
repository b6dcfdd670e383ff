//! A handler with a check of its writes against its declared tables.
//!
//! A rebuild would write a table that a handler fills without declaring it a second time. A batch that wrote such a
//! table is therefore refused before it commits: in every rebuild, and in each use of a [`WriteCheckedHandler`]. The
//! server's own statistics of the transaction name the written tables, so writes of triggers and cascades count as
//! well. With `track_counts` off there are no statistics, and nothing is refused; the server would not vacuum then
//! either.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use epoch::{Batch, handler::EventHandler};
use sqlx::{FromRow, PgConnection};

use crate::{
    delivery::{error::HandlerError, handler::PgHandler},
    transaction::pg_tx::PgTx,
};

/// Epoch's own tables. Handlers write them only through Epoch.
const EPOCH_TABLES: &[&str] = &[
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

/// A handler with a check of its writes. The check costs two queries a batch: rebuilds always use it, others only in
/// tests.
pub struct WriteCheckedHandler {
    handler: Arc<dyn PgHandler>,
    undeclared: OnceLock<String>,
}

/// How many rows of a table this transaction has written.
#[derive(FromRow)]
struct WrittenTable {
    oid: i64,
    rows: i64,
    name: String,
}

impl WriteCheckedHandler {
    /// Wraps `handler`.
    #[must_use]
    pub fn new(handler: Arc<dyn PgHandler>) -> Arc<Self> {
        Arc::new(Self { handler, undeclared: OnceLock::new() })
    }

    /// Returns the undeclared tables that the handler tried to write, if any.
    pub(crate) fn undeclared(&self) -> Option<&str> {
        self.undeclared.get().map(String::as_str)
    }

    async fn undeclared_writes(&self, connection: &mut PgConnection) -> Result<Vec<WrittenTable>, sqlx::Error> {
        let declared: Vec<&str> = [self.handler.tables(), self.handler.also_writes(), EPOCH_TABLES].concat();
        sqlx::query_as(include_str!("sql/written_tables.sql")).bind(declared).fetch_all(connection).await
    }
}

#[async_trait]
impl EventHandler<PgTx> for WriteCheckedHandler {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        self.handler.name()
    }

    fn aggregates(&self) -> &'static [&'static str] {
        self.handler.aggregates()
    }

    fn allows_fast_path(&self) -> bool {
        self.handler.allows_fast_path()
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
        // The server may keep a connection's counts for longer than a transaction, so only an increase is a write.
        let before: HashMap<i64, i64> =
            self.undeclared_writes(tx.connection()).await?.into_iter().map(|table| (table.oid, table.rows)).collect();
        self.handler.handle(tx, events).await?;
        let after = self.undeclared_writes(tx.connection()).await?;
        let increased = |table: &WrittenTable| before.get(&table.oid).is_none_or(|earlier| table.rows > *earlier);
        let mut undeclared: Vec<String> = after.into_iter().filter(increased).map(|table| table.name).collect();
        if undeclared.is_empty() {
            return Ok(());
        }
        undeclared.sort_unstable();
        let tables = undeclared.join(", ");
        let _ = self.undeclared.set(tables.clone());
        tracing::error!(subscription = self.name(), tables, "handler writes undeclared tables");
        Err(HandlerError::Undeclared { tables })
    }
}
