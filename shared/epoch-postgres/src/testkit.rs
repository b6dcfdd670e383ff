//! Fresh databases for tests.
//!
//! Tests that share tables affect each other, so each test creates a database and drops it at its end. The environment
//! variable `EPOCH_TEST_DATABASE_URL` names the server.

use std::str::FromStr;

use sqlx::{
    Connection, PgConnection, PgPool, Postgres,
    migrate::{Migrate, MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};
use uuid::Uuid;

use crate::{
    database::{
        connect::connect,
        functions,
        migrations::{migrate, run_migrations},
    },
    store::{commands, loader, snapshots, states, stream_ends, streams},
};

/// Returns the queries of commands and pages by name. Their cost must not depend on the length of the log.
#[must_use]
pub fn hot_queries() -> Vec<(&'static str, &'static str)> {
    vec![
        ("visit", streams::VISIT_STREAM),
        ("visit_many", loader::LOAD_STREAMS),
        ("stream", streams::READ_STREAM_PAGE),
        ("stream_all", streams::READ_LOG_PAGE),
        ("end", streams::LOG_END),
        ("ends", stream_ends::STREAM_ENDS),
        ("find_command", commands::FIND_COMMAND),
        ("get_state", states::GET_STATE),
        ("put_state", states::PUT_STATE),
        ("delete_state", states::DELETE_STATE),
        ("newest_snapshot", snapshots::NEWEST),
        ("newest_snapshot_and_since", snapshots::NEWEST_AND_SINCE),
        ("save_snapshots", snapshots::SAVE),
        ("discard_snapshot", snapshots::DISCARD),
    ]
}

/// The SQL functions that [`migrate`](crate::migrate) applies after the migrations.
pub struct FunctionSet {
    /// The number of the set.
    pub revision: i64,
    /// The hash of the texts.
    pub fingerprint: i64,
    /// The texts of the files, in the order of their application.
    pub texts: &'static [&'static str],
}

/// Returns the function set of this crate.
#[must_use]
pub fn function_set() -> FunctionSet {
    let texts = functions::FUNCTIONS;
    FunctionSet { revision: functions::REVISION, fingerprint: functions::fingerprint(texts), texts }
}

/// Runs Epoch's migrations in `schema` without the functions, as releases before migration 14 did.
///
/// # Errors
/// As [`migrate`](crate::migrate).
pub async fn migrate_without_functions(pool: &PgPool, schema: &str) -> Result<(), MigrateError> {
    let mut connection = pool.acquire().await?;
    connection.lock().await?;
    run_migrations(&mut connection, schema, &Migrator::DEFAULT).await?;
    connection.unlock().await
}

/// A database for one test.
pub struct TestDatabase {
    server: PgConnectOptions,
    name: String,
}

#[allow(clippy::expect_used, reason = "a test kit fails tests by panicking")]
impl TestDatabase {
    /// Creates an empty database on the test server.
    ///
    /// # Panics
    /// When `EPOCH_TEST_DATABASE_URL` isn't set or the server can't be reached.
    pub async fn create() -> Self {
        let url = std::env::var("EPOCH_TEST_DATABASE_URL").expect("EPOCH_TEST_DATABASE_URL; run tests by ./dev test");
        Self::create_on(&url).await
    }

    /// Creates an empty database on the server at `url`.
    ///
    /// # Panics
    /// When the server can't be reached.
    pub async fn create_on(url: &str) -> Self {
        let server = PgConnectOptions::from_str(url).expect("a database url");
        let name = format!("test_{}", Uuid::now_v7().simple());
        let mut connection = PgConnection::connect_with(&server).await.expect("the test server");
        let create = sqlx::AssertSqlSafe(format!("create database {name}"));
        sqlx::query::<Postgres>(create).execute(&mut connection).await.expect("a new database");
        connection.close().await.expect("closing");
        Self { server, name }
    }

    /// Returns connections to the schema `schema` of this database, with Epoch's and `service`'s tables.
    ///
    /// # Panics
    /// When the tables can't be created.
    pub async fn pool(&self, schema: &str, service: &Migrator) -> PgPool {
        let pool = self.empty_pool(schema).await;
        migrate(&pool, schema, service).await.expect("migrations");
        pool
    }

    /// Returns connections to the schema `schema` of this database, without any tables.
    ///
    /// # Panics
    /// When the server can't be reached.
    pub async fn empty_pool(&self, schema: &str) -> PgPool {
        connect(PgPoolOptions::new().max_connections(10), self.options(), schema).await.expect("a pool")
    }

    /// Returns connections to a schema `test` that has only Epoch's tables.
    ///
    /// # Panics
    /// When the tables can't be created.
    pub async fn epoch(&self) -> PgPool {
        self.pool("test", &Migrator::DEFAULT).await
    }

    /// Returns the connection options of this database.
    #[must_use]
    pub fn options(&self) -> PgConnectOptions {
        self.server.clone().database(&self.name)
    }

    /// Returns the address of this database.
    #[must_use]
    pub fn url(&self) -> String {
        let options = self.options();
        format!("postgres://{}@{}:{}/{}", options.get_username(), options.get_host(), options.get_port(), self.name)
    }

    /// Drops the database, even if connections to it are open.
    ///
    /// # Panics
    /// When the server can't be reached.
    pub async fn drop(self) {
        let mut connection = PgConnection::connect_with(&self.server).await.expect("the test server");
        let drop = sqlx::AssertSqlSafe(format!("drop database if exists {} with (force)", self.name));
        sqlx::query::<Postgres>(drop).execute(&mut connection).await.expect("dropping");
    }
}
