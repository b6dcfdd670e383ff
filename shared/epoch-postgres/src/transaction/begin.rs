//! Opening a [`PgTx`] on a [`PgStore`].

use std::time::Duration;

use epoch::retry::RetryPolicy;
use futures::future::BoxFuture;
use sqlx::{Postgres, Transaction};

use crate::{
    database::begin::{begin, begin_with_statements},
    store::pg_store::PgStore,
    transaction::{
        durability::Durability,
        error::TxError,
        pg_tx::{PgTx, SqlTransaction},
    },
};

/// How long [`PgStore::transaction`] waits for the subscriptions of this process after a commit.
const SUBSCRIPTION_WAIT: Duration = Duration::from_millis(500);

impl PgStore {
    /// Opens a transaction.
    ///
    /// # Errors
    /// When the database can't be reached.
    pub async fn begin(&self) -> Result<PgTx, TxError> {
        self.begin_with(Durability::AtCommit).await
    }

    pub(crate) async fn begin_with(&self, durability: Durability) -> Result<PgTx, TxError> {
        let transaction = begin(self.pool(), durability.begin_statement()).await?;
        Ok(PgTx::new(self.clone(), SqlTransaction::Sqlx(transaction), durability))
    }

    /// Opens a transaction with [`Durability::Deferred`] and its first statement, in one round trip.
    ///
    /// The statement is sent as text, so it must not contain unchecked input.
    pub(crate) async fn begin_deferred_with(&self, statement: &str) -> Result<PgTx, sqlx::Error> {
        let durability = Durability::Deferred;
        // Such a transaction has few events: planning each statement of the handler would take as long as running it.
        let begin = durability.begin_statement();
        let statements = format!("{begin}; set local plan_cache_mode to force_generic_plan; {statement}");
        let transaction = begin_with_statements(self.pool(), statements).await?;
        Ok(PgTx::new(self.clone(), SqlTransaction::Batched(transaction), durability))
    }

    /// Continues a transaction of the caller on the same database. Its earlier statements commit with the events.
    #[must_use]
    pub fn adopt(&self, transaction: Transaction<'static, Postgres>) -> PgTx {
        PgTx::new(self.clone(), SqlTransaction::Sqlx(transaction), Durability::AtCommit)
    }

    /// Runs `body` in a transaction and commits it. After a conflict, runs `body` again in a new transaction.
    ///
    /// # Errors
    /// The error of `body`; [`TxError`] when attempts run out or the database fails.
    pub async fn transaction<T, E, F>(&self, mut body: F) -> Result<T, E>
    where
        E: From<TxError>,
        F: for<'tx> FnMut(&'tx mut PgTx) -> BoxFuture<'tx, Result<T, E>>,
    {
        let retry = RetryPolicy::CONFLICT;
        let mut failed = 0;
        loop {
            let mut tx = self.begin().await?;
            let value = body(&mut tx).await?;
            match tx.commit().await {
                Ok(receipt) => {
                    receipt.wait(SUBSCRIPTION_WAIT).await;
                    return Ok(value);
                }
                Err(error) if error.is_conflict() && failed + 1 < retry.attempts => {
                    failed += 1;
                    tokio::time::sleep(retry.wait(failed)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
