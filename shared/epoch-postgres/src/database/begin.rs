//! Opening transactions in a way that survives a cancelled caller.
//!
//! sqlx 0.9.0 counts a transaction only after the server has answered `begin`. If the caller is dropped while it waits
//! for that answer, the connection returns to the pool with an open transaction, and the next user's writes are never
//! committed. [`begin`] and [`begin_with_statements`] therefore finish in a task of their own when they are dropped,
//! and that task rolls the transaction back.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use sqlx::{
    AssertSqlSafe, PgConnection, PgPool, Postgres, SqlSafeStr, Transaction, pool::PoolConnection,
    postgres::PgTransactionManager,
};
use sqlx_core::transaction::TransactionManager;
use tokio::runtime::Handle;

/// Opens a transaction with `statement`, for example `begin`. Safe to cancel.
///
/// # Errors
/// When the server can't be reached.
pub async fn begin(pool: &PgPool, statement: &'static str) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let pool = pool.clone();
    CancelSafe { pending: Some(Box::pin(async move { pool.begin_with(statement).await })) }.await
}

/// Opens a transaction with several statements in one round trip; the first is `begin`, and a later one may fail.
///
/// The statements are sent as text, so they must not contain unchecked input.
pub(crate) async fn begin_with_statements(pool: &PgPool, statements: String) -> Result<OpenTransaction, sqlx::Error> {
    let pool = pool.clone();
    let opening = async move {
        let mut connection = pool.acquire().await?;
        match PgTransactionManager::begin(&mut connection, Some(AssertSqlSafe(statements).into_sql_str())).await {
            Ok(()) => Ok(OpenTransaction { connection, ended: false }),
            Err(error) => {
                // `begin` has run on the server, but sqlx does not count the transaction and would not roll it back.
                if sqlx::raw_sql("rollback").execute(&mut *connection).await.is_err() {
                    drop(connection.detach());
                }
                Err(error)
            }
        }
    };
    CancelSafe { pending: Some(Box::pin(opening)) }.await
}

/// A transaction opened by [`begin_with_statements`]; rolls back when it is dropped, as [`Transaction`] does.
pub(crate) struct OpenTransaction {
    connection: PoolConnection<Postgres>,
    ended: bool,
}

impl OpenTransaction {
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    pub(crate) async fn commit(mut self) -> Result<(), sqlx::Error> {
        PgTransactionManager::commit(&mut self.connection).await?;
        self.ended = true;
        Ok(())
    }

    pub(crate) async fn rollback(mut self) -> Result<(), sqlx::Error> {
        PgTransactionManager::rollback(&mut self.connection).await?;
        self.ended = true;
        Ok(())
    }
}

impl Drop for OpenTransaction {
    fn drop(&mut self) {
        if !self.ended {
            // Queued on the connection; sent before its next use.
            PgTransactionManager::start_rollback(&mut self.connection);
        }
    }
}

type PendingOpen<T> = Pin<Box<dyn Future<Output = Result<T, sqlx::Error>> + Send>>;

/// Runs `pending` to its end: in the caller's task, or in a new one when the caller is dropped first.
struct CancelSafe<T: Send + 'static> {
    pending: Option<PendingOpen<T>>,
}

impl<T: Send + 'static> Future for CancelSafe<T> {
    type Output = Result<T, sqlx::Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(pending) = &mut self.pending else { return Poll::Ready(Err(sqlx::Error::WorkerCrashed)) };
        let opened = ready!(pending.as_mut().poll(context));
        self.pending = None;
        Poll::Ready(opened)
    }
}

impl<T: Send + 'static> Drop for CancelSafe<T> {
    fn drop(&mut self) {
        if let (Some(pending), Ok(runtime)) = (self.pending.take(), Handle::try_current()) {
            drop(runtime.spawn(pending));
        }
    }
}
