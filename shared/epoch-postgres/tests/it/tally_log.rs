//! A log of tallies, inserted directly.

use epoch::{
    DomainEvent, FastPath,
    testkit::{Tallied, TallyEvent},
};
use epoch_postgres::PgStore;
use sqlx::PgPool;
use uuid::Uuid;

/// Inserts `events` events into each of the tallies with ids 0, 1, 2, …
pub(crate) async fn insert(pool: &PgPool, aggregates: i64, events: i64) {
    let encoded = TallyEvent::from(Tallied { by: 1 }).encode().unwrap();
    let prepare = "alter table events set unlogged; alter table events set (autovacuum_enabled = false)";
    sqlx::raw_sql(prepare).execute(pool).await.unwrap();
    // Creating the index afterwards is faster, but gives the planner the length of the table.
    let many = aggregates * events > 100_000;
    if many {
        let drop = "alter table events drop constraint events_aggregate_id_aggregate_version_key";
        sqlx::raw_sql(drop).execute(pool).await.unwrap();
    }
    sqlx::query(
        "insert into events (aggregate, aggregate_id, version, event_id, event_name, schema, payload, metadata, \
         occurred_at, recorded_at) select 'tally', id, n, id, 'Tallied', $3, $4, $5::json, n, n \
         from generate_series(1, $2) n, \
         (select lpad(to_hex(a), 32, '0')::uuid as id from generate_series(0, $1 - 1) a offset 0) tallies",
    )
    .bind(aggregates)
    .bind(events)
    .bind(encoded.schema.get().cast_signed())
    .bind(encoded.payload.as_ref())
    .bind(format!("{{\"command_id\":\"{0}\",\"correlation_id\":\"{0}\"}}", Uuid::nil()))
    .execute(pool)
    .await
    .unwrap();
    if many {
        let add = "alter table events add constraint events_aggregate_id_aggregate_version_key \
             unique (aggregate_id, aggregate, version)";
        sqlx::raw_sql(add).execute(pool).await.unwrap();
    }
}

pub(crate) fn store_on(pool: PgPool) -> PgStore {
    let (store, appender) = PgStore::new(pool, FastPath::new());
    tokio::spawn(appender.run());
    store
}
