//! A bus in a Postgres database, for when there is no broker.
//!
//! The problem: one more system to run is too much for a laptop or a small installation.
//!
//! The invariant: that of every [bus](epoch::bus). Publishers take turns under a lock, so numbers grow in commit order and a
//! consumer that reads past one never misses an earlier one. One consumer at a time serves a group.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use epoch::{
    Batch, Envelope,
    bus::{Bus, ConsumeError, PublishError},
    gate::Way,
    handler::Subscription,
    message::Message,
    retry::RetryPolicy,
    trace,
};
use sqlx::{
    Connection, PgConnection, PgPool, Row,
    migrate::{MigrateError, Migrator},
    postgres::PgRow,
    types::Json,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

static MIGRATIONS: Migrator = sqlx::migrate!("./bus-migrations");

/// Messages delivered at once.
const BATCH: i64 = 500;
/// How often to look for messages of other processes.
const POLL: Duration = Duration::from_millis(100);

/// Carries events through tables in the schema `epoch_bus`.
#[derive(Clone)]
pub struct PgBus {
    pool: PgPool,
    namespace: String,
    group_prefix: String,
    published: Arc<watch::Sender<()>>,
}

impl PgBus {
    /// A bus in the database of `pool`; makes its tables. `namespace` begins types and sources, as in `catacloud`;
    /// `group_prefix` tells the subscriptions of different services apart.
    ///
    /// # Errors
    /// [`MigrateError`] when the tables can't be made.
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

    async fn write(&self, events: &Batch) -> Result<(), sqlx::Error> {
        let messages: Vec<Message> = events.iter().map(|event| Message::of(event, &self.namespace)).collect();
        let aggregates: Vec<&str> = messages.iter().map(|message| message.aggregate.as_ref()).collect();
        let headers: Vec<Json<HashMap<&str, &str>>> = messages
            .iter()
            .map(|message| Json(message.headers.iter().map(|(name, value)| (*name, value.as_str())).collect()))
            .collect();
        let bodies: Vec<&[u8]> = messages.iter().map(|message| message.body.as_ref()).collect();
        let mut tx = crate::database::connect::begin(&self.pool, "begin").await?;
        sqlx::query(
            "select pg_advisory_xact_lock((1162891077::bigint << 32) | 'epoch_bus.messages'::regclass::oid::bigint)",
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "insert into epoch_bus.messages (aggregate, headers, body) \
             select m.aggregate, m.headers, m.body from unnest($1::text[], $2::json[], $3::bytea[]) \
             with ordinality as m (aggregate, headers, body, n) order by m.n",
        )
        .bind(aggregates)
        .bind(headers)
        .bind(bodies)
        .execute(&mut *tx)
        .await?;
        tx.commit().await
    }

    /// Serves the group while it is the only one to; `Ok` when another serves it or `stop` was asked for.
    async fn serve(&self, subscription: &dyn Subscription, stop: &CancellationToken) -> Result<(), sqlx::Error> {
        let group = format!("{}.{}", self.group_prefix, subscription.name());
        let mut connection = PgConnection::connect_with(&self.pool.connect_options()).await?;
        let lock = "select pg_try_advisory_lock(1162891078, hashtext($1))";
        if !sqlx::query_scalar::<_, bool>(lock).bind(&group).fetch_one(&mut connection).await? {
            return connection.close().await;
        }
        let start = "insert into epoch_bus.groups (name, number) values ($1, 0) \
             on conflict (name) do update set number = epoch_bus.groups.number returning number";
        let mut number: i64 = sqlx::query_scalar(start).bind(&group).fetch_one(&mut connection).await?;
        let mut published = self.published.subscribe();
        let mut failed = 0;
        while !stop.is_cancelled() {
            published.borrow_and_update();
            let read = "select number, headers, body, aggregate from epoch_bus.messages \
                 where number > $1 and aggregate = any($2) order by number limit $3";
            let rows = sqlx::query(read).bind(number).bind(subscription.aggregates()).bind(BATCH);
            let rows = rows.fetch_all(&mut connection).await?;
            let Some(last) = rows.last() else {
                tokio::select! {
                    () = stop.cancelled() => {}
                    _ = tokio::time::timeout(POLL, published.changed()) => {}
                }
                continue;
            };
            let next: i64 = last.try_get(0)?;
            let mut events: Vec<Arc<Envelope>> = Vec::with_capacity(rows.len());
            for row in &rows {
                match event(row) {
                    Ok(event) => events.push(Arc::new(event)),
                    Err(reason) => {
                        let (number, topic): (i64, String) = (row.try_get(0)?, row.try_get(3)?);
                        tracing::error!(group, number, topic, reason, "not an event, passed over");
                        let name = subscription.name().to_owned();
                        metrics::counter!("epoch_unreadable_total", "subscription" => name, "topic" => topic)
                            .increment(1);
                    }
                }
            }
            let span = tracing::debug_span!("deliver", subscription = subscription.name(), last = next);
            trace::link(&span, &events);
            if !events.is_empty()
                && let Err(error) = subscription.deliver(&events, Way::Bus).instrument(span).await
            {
                failed += 1;
                tracing::warn!(group, %error, failed, "delivery failed");
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(RetryPolicy::HANDLER.wait(failed)) => {}
                }
                continue;
            }
            failed = 0;
            number = next;
            let advance = "update epoch_bus.groups set number = $2 where name = $1";
            sqlx::query(advance).bind(&group).bind(number).execute(&mut connection).await?;
        }
        connection.close().await
    }
}

/// The event in a message, or why there is none.
fn event(row: &PgRow) -> Result<Envelope, String> {
    // Somebody else's message may have headers of any shape; that must not look like a fault of the database.
    let headers: Json<HashMap<String, String>> = row.try_get(1).map_err(|error| error.to_string())?;
    let body = Bytes::from(row.try_get::<Vec<u8>, _>(2).map_err(|error| error.to_string())?);
    Message::read(|name| headers.0.get(name).map(String::as_str), &body).map_err(|error| error.to_string())
}

#[async_trait]
impl Bus for PgBus {
    async fn publish(&self, events: &Batch) -> Result<(), PublishError> {
        self.write(events).await.map_err(|error| PublishError {
            acknowledged: 0,
            offered: events.len(),
            detail: error.to_string(),
        })?;
        self.published.send_replace(());
        Ok(())
    }

    async fn consume(&self, subscription: Arc<dyn Subscription>, stop: CancellationToken) -> Result<(), ConsumeError> {
        while !stop.is_cancelled() {
            if let Err(error) = self.serve(&*subscription, &stop).await {
                tracing::warn!(subscription = subscription.name(), %error, "consumer lost its connection");
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
        }
        Ok(())
    }
}
