//! Conformance of the bus in Postgres.

use std::sync::Arc;

use async_trait::async_trait;
use epoch::{
    bus::Bus,
    testkit::bus::{AGGREGATE, BusFactory, Factory},
};
use epoch_postgres::{PgBus, testkit::TestDatabase};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::sync::Mutex;

struct Postgres {
    database: Mutex<Option<TestDatabase>>,
    pool: PgPool,
}

impl Postgres {
    async fn start() -> Factory {
        let database = TestDatabase::create().await;
        let pool = PgPoolOptions::new().max_connections(2).connect_with(database.options()).await.unwrap();
        Arc::new(Self { database: Mutex::new(Some(database)), pool })
    }
}

#[async_trait]
impl BusFactory for Postgres {
    async fn bus(&self) -> Arc<dyn Bus> {
        let options = PgPool::clone(&self.pool).connect_options();
        let pool = PgPoolOptions::new().max_connections(4).connect_with((*options).clone()).await.unwrap();
        Arc::new(PgBus::connect(pool, "test", "test").await.unwrap())
    }

    async fn publish_malformed(&self) -> bool {
        let stray = "insert into epoch_bus.messages (aggregate, headers, body) values ($1, '{}', 'hello, world')";
        sqlx::query(stray).bind(AGGREGATE).execute(&self.pool).await.unwrap();
        let stray = "insert into epoch_bus.messages (aggregate, headers, body) values ($1, '[7]', '')";
        sqlx::query(stray).bind(AGGREGATE).execute(&self.pool).await.unwrap();
        true
    }

    fn max_in_flight(&self) -> usize {
        500
    }

    fn shares_work(&self) -> bool {
        false
    }

    async fn close(&self) {
        if let Some(database) = self.database.lock().await.take() {
            database.drop().await;
        }
    }
}

epoch::bus_conformance!(Postgres::start());
