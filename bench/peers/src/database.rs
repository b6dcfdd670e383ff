//! The databases of the contestants and their read model.
//!
//! All contestants use the same server, pools of the same size, and a read model with the same two tables.

use std::str::FromStr;

use anyhow::{Context, Result};
use epoch_postgres::testkit::TestDatabase;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

/// The number of connections of each contestant.
pub const POOL: u32 = 16;

/// A contestant's database.
pub struct Database {
    test: TestDatabase,
    /// A pool for everything that is not measured: seeding, checks and reads of the read model.
    pub control: PgPool,
}

/// The address of a contestant's database, either directly or through the proxy that counts statements.
#[derive(Debug, Clone)]
pub struct Address {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub database: String,
}

impl Address {
    pub fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new()
            .host(&self.host)
            .port(self.port)
            .username(&self.user)
            .database(&self.database)
            .ssl_mode(sqlx::postgres::PgSslMode::Disable)
    }

    /// Returns a pool for peers on sqlx 0.9.
    pub async fn pool(&self) -> Result<PgPool> {
        let pool = PgPoolOptions::new().max_connections(POOL).test_before_acquire(false);
        Ok(pool.connect_with(self.options()).await?)
    }

    /// Returns options for peers on sqlx 0.8.
    pub fn options_08(&self) -> sqlx_08::postgres::PgConnectOptions {
        sqlx_08::postgres::PgConnectOptions::new()
            .host(&self.host)
            .port(self.port)
            .username(&self.user)
            .database(&self.database)
            .ssl_mode(sqlx_08::postgres::PgSslMode::Disable)
    }

    /// Returns pool options for peers on sqlx 0.8.
    pub fn pool_options_08() -> sqlx_08::postgres::PgPoolOptions {
        sqlx_08::postgres::PgPoolOptions::new().max_connections(POOL).test_before_acquire(false)
    }

    pub async fn pool_08(&self) -> Result<sqlx_08::PgPool> {
        Ok(Self::pool_options_08().connect_with(self.options_08()).await?)
    }
}

impl Database {
    pub async fn create(server: &str) -> Result<Self> {
        let test = TestDatabase::create_on(server).await;
        // Epoch uses its own schema, and the peers use the schema from their documentation.
        let options = test.options().options([("search_path", "epoch,public")]);
        let control = PgPoolOptions::new().max_connections(4).connect_with(options).await?;
        Ok(Self { test, control })
    }

    pub fn address(&self) -> Address {
        let options = self.test.options();
        Address {
            host: options.get_host().to_owned(),
            port: options.get_port(),
            user: options.get_username().to_owned(),
            database: options.get_database().unwrap_or_default().to_owned(),
        }
    }

    pub fn url(&self) -> String {
        self.test.url()
    }

    pub async fn drop(self) {
        self.control.close().await;
        self.test.drop().await;
    }
}

/// Connects to the server's default database.
pub async fn control(server: &str) -> Result<PgPool> {
    let options = PgConnectOptions::from_str(server).context("parsing the server's address")?;
    Ok(PgPoolOptions::new().max_connections(2).connect_with(options).await?)
}

/// The two tables: one row per aggregate, and one row per event in order of arrival.
pub const READ_MODEL: &str = "drop table if exists public.totals, public.seen; \
     create table public.totals (id text primary key, notes bigint not null, length bigint not null); \
     create table public.seen (n bigint generated always as identity primary key, id text not null, version bigint not null)";

/// Applies one event to `totals`: `$1` is the aggregate, `$2` the length of the text.
pub const TOTAL: &str = "insert into public.totals as t (id, notes, length) values ($1, 1, $2) \
     on conflict (id) do update set notes = t.notes + 1, length = excluded.length";

/// Adds one event to `seen`: `$1` is the aggregate, `$2` its version.
pub const SEEN: &str = "insert into public.seen (id, version) values ($1, $2)";

/// Applies many events to `totals`.
pub const TOTALS: &str = "insert into public.totals as t (id, notes, length) \
     select id, count(*), max(length) from unnest($1::text[], $2::bigint[]) as n (id, length) group by id order by id \
     on conflict (id) do update set notes = t.notes + excluded.notes, length = excluded.length";

/// Adds many events to `seen`, in order.
pub const SEEN_MANY: &str = "insert into public.seen (id, version) \
     select id, version from unnest($1::text[], $2::bigint[]) with ordinality as n (id, version, i) order by i";
