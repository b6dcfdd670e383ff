//! The bus: its tables, publishing, and starting consumers.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use epoch::{
    Batch,
    bus::{Bus, ConsumeError, PublishError},
    handler::Subscription,
    message::Message,
};
use sqlx::{
    PgPool,
    migrate::{MigrateError, Migrator},
    types::Json,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{bus::consumer::GroupConsumer, database::begin::begin};

static MIGRATIONS: Migrator = sqlx::migrate!("./bus-migrations");

/// How long a consumer waits before it tries again to serve its group.
const CONSUMER_INTERVAL: Duration = Duration::from_millis(500);

const LOCK_MESSAGES: &str =
    "select pg_advisory_xact_lock((1162891077::bigint << 32) | 'epoch_bus.messages'::regclass::oid::bigint)";

/// Carries events through tables in the schema `epoch_bus`.
#[derive(Clone)]
pub struct PgBus {
    pool: PgPool,
    namespace: String,
    group_prefix: String,
    published: Arc<watch::Sender<()>>,
}

impl PgBus {
    /// Creates the bus in the database of `pool`, with its tables.
    ///
    /// `namespace` is the prefix of types and sources, for example `catacloud`. `group_prefix` distinguishes the
    /// subscriptions of different services.
    ///
    /// # Errors
    /// [`MigrateError`] when the tables can't be created.
    pub async fn connect(pool: PgPool, namespace: &str, group_prefix: &str) -> Result<Self, MigrateError> {
        let mut migrator = Migrator::with_migrations(MIGRATIONS.iter().cloned().collect());
        migrator.create_schema("epoch_bus");
        migrator.dangerous_set_table_name("epoch_bus.migrations");
        migrator.run(&pool).await?;
        Ok(Self {
            pool,
            namespace: namespace.to_owned(),
            group_prefix: group_prefix.to_owned(),
            published: Arc::new(watch::channel(()).0),
        })
    }

    async fn insert(&self, events: &Batch) -> Result<(), sqlx::Error> {
        let messages: Vec<Message> = events.iter().map(|event| Message::of(event, &self.namespace)).collect();
        let aggregates: Vec<&str> = messages.iter().map(|message| message.aggregate.as_ref()).collect();
        let headers: Vec<Json<HashMap<&str, &str>>> = messages
            .iter()
            .map(|message| Json(message.headers.iter().map(|(name, value)| (*name, value.as_str())).collect()))
            .collect();
        let bodies: Vec<&[u8]> = messages.iter().map(|message| message.body.as_ref()).collect();
        let mut tx = begin(&self.pool, "begin").await?;
        sqlx::query(LOCK_MESSAGES).execute(&mut *tx).await?;
        let query = sqlx::query(include_str!("sql/insert_messages.sql")).bind(aggregates).bind(headers).bind(bodies);
        query.execute(&mut *tx).await?;
        tx.commit().await
    }
}

#[async_trait]
impl Bus for PgBus {
    async fn publish(&self, events: &Batch) -> Result<(), PublishError> {
        self.insert(events).await.map_err(|error| PublishError {
            acknowledged: 0,
            offered: events.len(),
            detail: error.to_string(),
        })?;
        self.published.send_replace(());
        Ok(())
    }

    async fn consume(&self, subscription: Arc<dyn Subscription>, stop: CancellationToken) -> Result<(), ConsumeError> {
        let consumer = GroupConsumer {
            pool: &self.pool,
            group: format!("{}.{}", self.group_prefix, subscription.name()),
            subscription: &*subscription,
            published: &self.published,
        };
        while !stop.is_cancelled() {
            if let Err(error) = consumer.serve(&stop).await {
                tracing::warn!(subscription = subscription.name(), %error, "consumer lost its connection");
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(CONSUMER_INTERVAL) => {}
            }
        }
        Ok(())
    }
}
