//! The database of the examples.

use std::env;

use anyhow::Context;
use epoch_postgres::connect;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

/// Connects to the schema `schema` of the database that `DATABASE_URL` names.
pub(crate) async fn connect_to(schema: &str) -> anyhow::Result<PgPool> {
    let url = env::var("DATABASE_URL").context("set DATABASE_URL (postgres://user@host/database)")?;
    let server = url.parse::<PgConnectOptions>().context("DATABASE_URL")?;
    connect(PgPoolOptions::new().max_connections(10), server, schema).await.context("connecting to Postgres")
}
