//! Connections to a service's own schema.
//!
//! The problem: services share a database server, and none may touch another's tables by accident.
//! The invariant: a connection sees its service's schema and nothing else unless it is named.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use sqlx::{
    AssertSqlSafe, Connection, PgConnection, PgPool, Postgres, SqlSafeStr, Transaction,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions, PgTransactionManager},
};
use sqlx_core::transaction::TransactionManager;
use tokio::runtime::Handle;

/// Opens a pool whose connections have `schema` as their search path.
///
/// They plan a statement once. Left to itself, the server plans the first five calls for what they ask, and goes on so for good where
/// that looks cheaper: who happened to ask first on a connection would decide what later questions cost.
///
/// # Errors
/// When the server can't be reached.
pub async fn connect(pool: PgPoolOptions, server: PgConnectOptions, schema: &str) -> Result<PgPool, sqlx::Error> {
    // A connection that broke is found by its first use and replaced; asking each time would be one more round trip a query.
    let settings = [("search_path", schema), ("plan_cache_mode", "force_generic_plan"), ("jit", "off")];
    pool.test_before_acquire(false).connect_with(server.options(settings)).await
}

/// A connection beside the pool: commands go on however busy that is. Its plans are made once, and without sequential scans: one
/// made while the table was small would live on when it is not.
pub(crate) async fn own_connection(pool: &PgPool) -> Result<PgConnection, sqlx::Error> {
    let options = PgConnectOptions::clone(&pool.connect_options());
    let settings = [("plan_cache_mode", "force_generic_plan"), ("enable_seqscan", "off"), ("jit", "off")];
    PgConnection::connect_with(&options.options(settings)).await
}

/// Opens a transaction with `statement`, as in `begin`.
///
/// Who gives up waiting for a transaction that is just being opened would leave it open on a connection that goes back to the pool (sqlx
/// 0.9.0 counts a transaction only when the server has answered), and what the next one writes there would never be committed. So the
/// opening then goes on in a task of its own, and ends with a rollback.
///
/// # Errors
/// When the server can't be reached.
pub async fn begin(pool: &PgPool, statement: &'static str) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let pool = pool.clone();
    Opening { rest: Some(Box::pin(async move { pool.begin_with(statement).await })) }.await
}

/// Opens a transaction with several statements, sent together, the last of which may refuse. They are not prepared: nothing in
/// them may come from outside.
pub(crate) async fn open(pool: &PgPool, statements: String) -> Result<Open, sqlx::Error> {
    let pool = pool.clone();
    let opening = async move {
        let mut connection = pool.acquire().await?;
        match PgTransactionManager::begin(&mut connection, Some(AssertSqlSafe(statements).into_sql_str())).await {
            Ok(()) => Ok(Open { connection, ended: false }),
            Err(error) => {
                // The server has begun it, and sqlx doesn't count it.
                if sqlx::raw_sql("rollback").execute(&mut *connection).await.is_err() {
                    drop(connection.detach());
                }
                Err(error)
            }
        }
    };
    Opening { rest: Some(Box::pin(opening)) }.await
}

/// A transaction on a connection of the pool, as [`Transaction`] is one.
pub(crate) struct Open {
    connection: PoolConnection<Postgres>,
    ended: bool,
}

impl Open {
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

impl Drop for Open {
    fn drop(&mut self) {
        if !self.ended {
            // Sent before anything else that the connection is used for.
            PgTransactionManager::start_rollback(&mut self.connection);
        }
    }
}

type Rest<T> = Pin<Box<dyn Future<Output = Result<T, sqlx::Error>> + Send>>;

/// A transaction that is being opened; nobody stops it half-way.
struct Opening<T: Send + 'static> {
    rest: Option<Rest<T>>,
}

impl<T: Send + 'static> Future for Opening<T> {
    type Output = Result<T, sqlx::Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(rest) = &mut self.rest else { return Poll::Ready(Err(sqlx::Error::WorkerCrashed)) };
        let opened = ready!(rest.as_mut().poll(context));
        self.rest = None;
        Poll::Ready(opened)
    }
}

impl<T: Send + 'static> Drop for Opening<T> {
    fn drop(&mut self) {
        if let (Some(rest), Ok(runtime)) = (self.rest.take(), Handle::try_current()) {
            drop(runtime.spawn(rest));
        }
    }
}
