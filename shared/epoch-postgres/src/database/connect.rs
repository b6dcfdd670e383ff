//! Connections to a service's own schema.
//!
//! Services share a database server, and none may touch another's tables by accident. A connection therefore has its
//! service's schema as its only search path; other schemas are reached by qualified names alone.

use sqlx::{
    Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

/// Opens a pool with `schema` as the search path of its connections.
///
/// The connections use generic plans. With the default setting the server plans the first five calls of a statement for
/// their actual parameters and may then keep that plan, so that the first callers would decide the cost of later calls.
///
/// # Errors
/// When the server can't be reached.
pub async fn connect(pool: PgPoolOptions, server: PgConnectOptions, schema: &str) -> Result<PgPool, sqlx::Error> {
    // The first use of a broken connection fails and replaces it. A test before each use would cost a round trip a
    // query.
    let settings = [("search_path", schema), ("plan_cache_mode", "force_generic_plan"), ("jit", "off")];
    pool.test_before_acquire(false).connect_with(server.options(settings)).await
}

/// Opens a connection outside the pool, so that its task can work while the pool is exhausted.
///
/// Sequential scans are off: a generic plan made while the table was small would otherwise scan it for ever.
pub(crate) async fn dedicated_connection(pool: &PgPool) -> Result<PgConnection, sqlx::Error> {
    let options = PgConnectOptions::clone(&pool.connect_options());
    let settings = [("plan_cache_mode", "force_generic_plan"), ("enable_seqscan", "off"), ("jit", "off")];
    PgConnection::connect_with(&options.options(settings)).await
}
