//! Epoch's migrations and a service's own, in one schema and one history.
//!
//! Versions below 1,000 are Epoch's, versions from 1,000 on the service's. Migrations only go forward, each runs once,
//! and one that differs from its applied text is refused. Epoch's functions follow after the migrations, under the same
//! lock; see [`functions`](crate::database::functions).

use sqlx::{
    PgConnection, PgPool,
    migrate::{Migrate, MigrateError, Migration, Migrator},
};

use crate::database::functions;

static EPOCH: Migrator = sqlx::migrate!("./migrations");

/// Brings the schema `schema` up to date: Epoch's migrations, then the service's, then Epoch's functions.
///
/// # Errors
/// [`MigrateError`] when a migration fails or differs from its applied text, or when the functions can't be applied.
pub async fn migrate(pool: &PgPool, schema: &str, service: &Migrator) -> Result<(), MigrateError> {
    let mut connection = pool.acquire().await?;
    // The lock belongs to the session. After an error the connection is closed, which releases the lock.
    connection.close_on_drop();
    connection.lock().await?;
    run_migrations(&mut connection, schema, service).await?;
    functions::apply(&mut connection).await?;
    connection.unlock().await
}

/// Runs the migrations alone. The caller holds the migration lock.
pub(crate) async fn run_migrations(
    connection: &mut PgConnection,
    schema: &str,
    service: &Migrator,
) -> Result<(), MigrateError> {
    let migrations: Vec<Migration> = EPOCH.iter().chain(service.iter()).cloned().collect();
    let mut migrator = Migrator::with_migrations(migrations);
    migrator.create_schema(format!("\"{schema}\""));
    migrator.set_locking(false);
    migrator.run(connection).await
}
