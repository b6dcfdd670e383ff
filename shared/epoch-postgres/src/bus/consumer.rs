//! Consuming messages for one group.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use epoch::{Envelope, gate::DeliverySource, handler::Subscription, message::Message, retry::RetryPolicy, trace};
use sqlx::{Connection, FromRow, PgConnection, PgPool, Row, postgres::PgRow, types::Json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// How many messages are delivered in one batch.
const BATCH: i64 = 500;
/// How often a consumer looks for messages of other processes.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Delivers the messages of a group to a subscription.
pub(super) struct GroupConsumer<'a> {
    pub(super) pool: &'a PgPool,
    pub(super) group: String,
    pub(super) subscription: &'a dyn Subscription,
    /// Changes when this process has published messages.
    pub(super) published: &'a watch::Sender<()>,
}

impl GroupConsumer<'_> {
    /// Serves the group until `stop`. Returns at once when another consumer serves it.
    pub(super) async fn serve(&self, stop: &CancellationToken) -> Result<(), sqlx::Error> {
        let group = &*self.group;
        // The lock belongs to this connection: when the connection dies, another consumer serves the group.
        let mut connection = PgConnection::connect_with(&self.pool.connect_options()).await?;
        let lock = "select pg_try_advisory_lock(1162891078, hashtext($1))";
        if !sqlx::query_scalar::<_, bool>(lock).bind(group).fetch_one(&mut connection).await? {
            return connection.close().await;
        }
        let query = sqlx::query_scalar(include_str!("sql/start_group.sql")).bind(group);
        let mut consumed: i64 = query.fetch_one(&mut connection).await?;
        let mut published = self.published.subscribe();
        let mut failed = 0;
        while !stop.is_cancelled() {
            published.borrow_and_update();
            let query = sqlx::query(include_str!("sql/read_messages.sql")).bind(consumed);
            let query = query.bind(self.subscription.aggregates()).bind(BATCH);
            let rows = query.fetch_all(&mut connection).await?;
            let Some(last) = rows.last() else {
                tokio::select! {
                    () = stop.cancelled() => {}
                    _ = tokio::time::timeout(POLL_INTERVAL, published.changed()) => {}
                }
                continue;
            };
            let last = MessageId::from_row(last)?.number;
            let events = self.decode(&rows)?;
            let span = tracing::debug_span!("deliver", subscription = self.subscription.name(), last);
            trace::link(&span, &events);
            if !events.is_empty()
                && let Err(error) = self.subscription.deliver(&events, DeliverySource::Bus).instrument(span).await
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
            consumed = last;
            let advance = "update epoch_bus.groups set number = $2 where name = $1";
            sqlx::query(advance).bind(group).bind(consumed).execute(&mut connection).await?;
        }
        connection.close().await
    }

    /// Decodes the events, skipping messages that are not events.
    fn decode(&self, rows: &[PgRow]) -> Result<Vec<Arc<Envelope>>, sqlx::Error> {
        let mut events = Vec::with_capacity(rows.len());
        for row in rows {
            match event(row) {
                Ok(event) => events.push(Arc::new(event)),
                Err(reason) => {
                    let MessageId { number, aggregate: topic } = MessageId::from_row(row)?;
                    tracing::error!(group = self.group, number, topic, reason, "message skipped: not an event");
                    let name = self.subscription.name().to_owned();
                    metrics::counter!("epoch_unreadable_total", "subscription" => name, "topic" => topic).increment(1);
                }
            }
        }
        Ok(events)
    }
}

#[derive(FromRow)]
struct MessageId {
    number: i64,
    aggregate: String,
}

/// Decodes a message, or returns the reason why it is not an event.
fn event(row: &PgRow) -> Result<Envelope, String> {
    // A foreign message may have headers of any shape. That is an error of the message, and not of the database.
    let headers: Json<HashMap<String, String>> = row.try_get("headers").map_err(|error| error.to_string())?;
    let body = Bytes::from(row.try_get::<Vec<u8>, _>("body").map_err(|error| error.to_string())?);
    Message::read(|name| headers.0.get(name).map(String::as_str), &body).map_err(|error| error.to_string())
}
