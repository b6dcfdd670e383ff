//! Epoch's tables and a service's own, in one schema and one history.
//!
//! The problem: a service's tables and Epoch's must be there together, or a service starts on half a schema.
//! The invariant: migrations only go forward, each once; a changed one is refused. Epoch's have versions below 1,000,
//! a service's its own from 1,000 on.

use sqlx::{
    PgPool,
    migrate::{MigrateError, Migration, Migrator},
};

static EPOCH: Migrator = sqlx::migrate!("./migrations");

/// Brings the schema `schema` up to date: Epoch's migrations, then the service's.
///
/// # Errors
/// [`MigrateError`] when one fails or differs from what was applied.
pub async fn migrate(pool: &PgPool, schema: &str, service: &Migrator) -> Result<(), MigrateError> {
    let migrations: Vec<Migration> = EPOCH.iter().chain(service.iter()).cloned().collect();
    let mut migrator = Migrator::with_migrations(migrations);
    migrator.create_schema(format!("\"{schema}\""));
    migrator.run(pool).await
}
