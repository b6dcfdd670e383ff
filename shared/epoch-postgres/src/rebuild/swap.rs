//! The swap.
//!
//! The problem: between looking whether the new generation has everything and putting it in place, the old one goes on.
//!
//! The invariant: while the swap decides, nobody moves the old generation's cursors: it holds their lock alone. What it sees
//! is what it replaces. The lock is held for a bounded time, during which events wait and reads are answered; a reader in the
//! way ends the attempt, not the reader.

use std::time::Duration;

use epoch::Timestamp;
use sqlx::PgConnection;
use tokio::time::Instant;

use crate::{
    database::error::is_transient,
    database::rows::number,
    rebuild::{
        BATCH, RebuildError, Run,
        building::{Building, same_shape, tables_error, tidy},
    },
};

/// How long events may wait while the new generation gets the last of them.
const CLOSED: Duration = Duration::from_secs(1);
/// How often to look meanwhile.
const POLL: Duration = Duration::from_millis(10);

const RETIRE: &str =
    "update generations set state = 'retired', ended_at = $3 where subscription = $1 and generation = $2";
const SERVE: &str = "update generations set state = 'serving' where subscription = $1 and generation = $2";

impl Building {
    /// Replaces the generation in use; `false` when it could not be done now.
    pub(super) async fn swap(&self, run: &mut Run) -> Result<bool, RebuildError> {
        let mut tx = crate::database::connect::begin(self.home.pool(), "begin").await?;
        // Shorter than the time after which the server looks for deadlocks, so that it is never a reader that is ended. In-flight
        // batches of a slow handler are waited for by coming again.
        sqlx::query("set local lock_timeout = '500ms'").execute(&mut *tx).await?;
        let swapped = match self.swap_in(&mut tx, run).await {
            Ok(swapped) => swapped,
            Err(SwapError::Waited(error)) => {
                tracing::debug!(%error, "swap gives way");
                false
            }
            Err(SwapError::Rebuild(error)) => return Err(error),
        };
        if !swapped {
            tx.rollback().await?;
            return Ok(false);
        }
        tx.commit().await?;
        self.subscription.progress.moved();
        let (subscription, generation) = (self.name, self.number);
        tracing::info!(subscription, generation, applied = run.applied(), "rebuilt");
        if let Err(error) = tidy(&self.home, subscription).await {
            tracing::warn!(subscription, %error, "what the old generation left is deleted by the next rebuild");
        }
        Ok(true)
    }

    async fn swap_in(&self, connection: &mut PgConnection, run: &mut Run) -> Result<bool, SwapError> {
        let name = self.name;
        let close = "select pg_advisory_xact_lock(epoch_gate($1, $2))";
        sqlx::query(close).bind(name).bind(self.old_number).execute(&mut *connection).await?;
        let deadline = Instant::now() + CLOSED;
        loop {
            while run.read(self, BATCH).await? {}
            if self.behind_in(connection).await?.is_none() {
                break;
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            tokio::time::sleep(POLL).await;
        }
        sqlx::query(close).bind(name).bind(number(self.number)).execute(&mut *connection).await?;
        if !same_shape(connection, &self.schema, self.tables).await? {
            let detail = "they were changed meanwhile; the next rebuild begins anew".to_owned();
            return Err(RebuildError::Tables { subscription: name.to_owned(), detail }.into());
        }
        let swap = sqlx::query("select epoch_swap_tables($1, $2)").bind(&self.schema).bind(self.tables);
        match swap.execute(&mut *connection).await {
            Ok(_) => {}
            Err(error) if is_waiting(&error) => return Err(SwapError::Waited(error)),
            Err(error) => return Err(tables_error(name, error).into()),
        }
        let retire = sqlx::query(RETIRE).bind(name).bind(self.old_number).bind(Timestamp::now().as_millis());
        retire.execute(&mut *connection).await?;
        sqlx::query(SERVE).bind(name).bind(number(self.number)).execute(&mut *connection).await?;
        Ok(true)
    }
}

enum SwapError {
    /// Somebody was in the way.
    Waited(sqlx::Error),
    Rebuild(RebuildError),
}

/// Source: PostgreSQL 15 documentation, appendix A: lock_not_available.
fn is_waiting(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == "55P03") || is_transient(error)
}

impl From<sqlx::Error> for SwapError {
    fn from(error: sqlx::Error) -> Self {
        if is_waiting(&error) { Self::Waited(error) } else { Self::Rebuild(error.into()) }
    }
}

impl From<RebuildError> for SwapError {
    fn from(error: RebuildError) -> Self {
        Self::Rebuild(error)
    }
}
