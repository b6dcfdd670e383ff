//! Fresh databases for tests.
//!
//! The problem: tests that share tables see each other. The invariant: each test has a database of its own, which goes
//! away with it. The server's address is in `EPOCH_TEST_DATABASE_URL`.

use std::str::FromStr;

use sqlx::{
    Connection, PgConnection, PgPool, Postgres,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use uuid::Uuid;

use crate::{
    database::connect::connect, database::migrations::migrate, store::loader, store::pg_store, store::snapshots,
    store::states, store::stream_ends, store::streams,
};

/// The queries of commands and pages, by name: each must cost the same however long the log is.
#[must_use]
pub fn hot_queries() -> Vec<(&'static str, &'static str)> {
    vec![
        ("visit", streams::VISIT),
        ("visit_many", loader::VISIT_MANY),
        ("stream", streams::STREAM),
        ("stream_all", streams::STREAM_ALL),
        ("end", streams::END),
        ("ends", stream_ends::ENDS),
        ("find_command", pg_store::FIND_COMMAND),
        ("get_state", states::GET_STATE),
        ("put_state", states::PUT_STATE),
        ("delete_state", states::DELETE_STATE),
        ("newest_snapshot", snapshots::NEWEST),
        ("newest_snapshot_and_since", snapshots::NEWEST_AND_SINCE),
        ("save_snapshots", snapshots::SAVE),
        ("discard_snapshot", snapshots::DISCARD),
    ]
}

/// A database for one test.
pub struct TestDatabase {
    server: PgConnectOptions,
    name: String,
}

#[allow(clippy::expect_used, reason = "a test kit fails tests by panicking")]
impl TestDatabase {
    /// Makes an empty database on the test server.
    ///
    /// # Panics
    /// When `EPOCH_TEST_DATABASE_URL` isn't set or the server isn't there.
    pub async fn create() -> Self {
        let url = std::env::var("EPOCH_TEST_DATABASE_URL").expect("EPOCH_TEST_DATABASE_URL; run tests by ./dev test");
        Self::create_on(&url).await
    }

    /// Makes an empty database on the server at `url`.
    ///
    /// # Panics
    /// When the server isn't there.
    pub async fn create_on(url: &str) -> Self {
        let server = PgConnectOptions::from_str(url).expect("a database url");
        let name = format!("test_{}", Uuid::now_v7().simple());
        let mut connection = PgConnection::connect_with(&server).await.expect("the test server");
        let create = sqlx::AssertSqlSafe(format!("create database {name}"));
        sqlx::query::<Postgres>(create).execute(&mut connection).await.expect("a new database");
        connection.close().await.expect("closing");
        Self { server, name }
    }

    /// Connections to the schema `schema` in this database, with Epoch's and `service`'s tables.
    ///
    /// # Panics
    /// When the tables can't be made.
    pub async fn pool(&self, schema: &str, service: &Migrator) -> PgPool {
        let pool = connect(PgPoolOptions::new().max_connections(10), self.options(), schema).await.expect("a pool");
        migrate(&pool, schema, service).await.expect("migrations");
        pool
    }

    /// Connections to a schema `test` that has only Epoch's tables.
    ///
    /// # Panics
    /// When the tables can't be made.
    pub async fn epoch(&self) -> PgPool {
        self.pool("test", &Migrator::DEFAULT).await
    }

    /// How to connect to this database.
    #[must_use]
    pub fn options(&self) -> PgConnectOptions {
        self.server.clone().database(&self.name)
    }

    /// The address of this database.
    #[must_use]
    pub fn url(&self) -> String {
        let options = self.options();
        format!("postgres://{}@{}:{}/{}", options.get_username(), options.get_host(), options.get_port(), self.name)
    }

    /// Drops the database, also when somebody is still connected.
    ///
    /// # Panics
    /// When the server isn't there.
    pub async fn drop(self) {
        let mut connection = PgConnection::connect_with(&self.server).await.expect("the test server");
        let drop = sqlx::AssertSqlSafe(format!("drop database if exists {} with (force)", self.name));
        sqlx::query::<Postgres>(drop).execute(&mut connection).await.expect("dropping");
    }
}
