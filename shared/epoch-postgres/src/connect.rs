//! Connections to a service's own schema.
//!
//! The problem: services share a database server, and none may touch another's tables by accident.
//! The invariant: a connection sees its service's schema and nothing else unless it is named.

use sqlx::{
    PgPool,
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
