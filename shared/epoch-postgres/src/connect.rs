//! Connections to a service's own schema.
//!
//! The problem: services share a database server, and none may touch another's tables by accident.
//! The invariant: a connection sees its service's schema and nothing else unless it is named.

use sqlx::{
    PgPool, Postgres, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions},
};

/// Opens a pool whose connections have `schema` as their search path.
///
/// # Errors
/// When the server can't be reached.
pub async fn connect(pool: PgPoolOptions, server: PgConnectOptions, schema: &str) -> Result<PgPool, sqlx::Error> {
    // A connection that broke is found by its first use and replaced; asking each time would be one more round trip a query.
    pool.test_before_acquire(false).connect_with(server.options([("search_path", schema)])).await
}

/// Opens a transaction with `statement`, as in `begin`, in a task of its own.
///
/// Who gives up waiting for a transaction that is just being opened would otherwise leave it open on a connection that goes back to the pool
/// (sqlx 0.9.0 counts a transaction only when the server has answered), and what the next one writes there would never be committed.
///
/// # Errors
/// When the server can't be reached.
pub async fn begin(pool: &PgPool, statement: &'static str) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let pool = pool.clone();
    let opening = tokio::spawn(async move { pool.begin_with(statement).await });
    opening.await.map_err(|_| sqlx::Error::WorkerCrashed)?
}
