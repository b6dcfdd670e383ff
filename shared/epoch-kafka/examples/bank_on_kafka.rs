//! Bank accounts on Postgres, with a read model of balances that consumes events from Kafka.
//!
//! Run it with `DATABASE_URL=… KAFKA_BOOTSTRAP_SERVERS=… cargo run -p epoch-kafka --example bank_on_kafka`.
//!
//! The aggregate is that of the in-memory example, unchanged. Tables are created in the schema `epoch_example_bank`, and events are
//! published to the topic `epoch_example.account.v1`.

use std::{env, sync::Arc, time::Duration};

use anyhow::Context;
use async_trait::async_trait;
use epoch::{Aggregate, Batch, CommandContext, FastPath, Repository, bus::Bus, envelope::StreamKey};
use epoch_kafka::{KafkaBus, KafkaConfig};
use epoch_postgres::{
    HandlerError, PgStore, PgSubscription, PgTx, Progress, Projection, ProjectionHandler, Relay, migrate,
};
use sqlx::migrate::Migrator;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    bank::{Account, AccountCommand, AccountEvent},
    database::connect_to,
};

#[path = "../../epoch/examples/bank.rs"]
#[allow(dead_code, reason = "only the aggregate is used")]
mod bank;
#[path = "../../epoch-postgres/examples/support/database.rs"]
mod database;

const SCHEMA: &str = "epoch_example_bank";
const BALANCES: &str = "create table if not exists balances (id uuid primary key, cents bigint not null)";
const ADD: &str = "insert into balances as b values ($1, $2) on conflict (id) do update set cents = b.cents + $2";

/// The read model: one row per account.
struct Balances;

#[async_trait]
impl Projection for Balances {
    const NAME: &'static str = "balances";
    const AGGREGATES: &'static [&'static str] = &[Account::NAME];
    const TABLES: &'static [&'static str] = &["balances"];

    async fn apply(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        for event in events {
            let cents = event.decode::<AccountEvent>()?.cents();
            sqlx::query(ADD).bind(event.aggregate_id).bind(cents).execute(tx.connection()).await?;
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let kafka = env::var("KAFKA_BOOTSTRAP_SERVERS").context("set KAFKA_BOOTSTRAP_SERVERS (host:9092)")?;
    let pool = connect_to(SCHEMA).await?;
    migrate(&pool, SCHEMA, &Migrator::DEFAULT).await?;
    sqlx::raw_sql(BALANCES).execute(&pool).await?;

    let (store, appender) = PgStore::new(pool.clone(), FastPath::new());
    let progress = Progress::new(pool.clone());
    let config = KafkaConfig {
        namespace: "epoch_example".to_owned(),
        group_prefix: "epoch_example".to_owned(),
        ..KafkaConfig::new(kafka)
    };
    let bus = Arc::new(KafkaBus::connect(config)?);
    let balances =
        Arc::new(PgSubscription::new(Arc::new(ProjectionHandler(Balances)), store.clone(), progress.clone()));
    let stop = CancellationToken::new();

    tokio::spawn(appender.run());
    let relay = tokio::spawn(Relay::new(store.clone(), bus.clone(), "kafka").run(stop.clone()));
    let consumer = tokio::spawn({
        let stop = stop.clone();
        async move { bus.consume(balances, stop).await }
    });

    let accounts = Repository::<Account, _>::new(store);
    let id = Uuid::now_v7();
    for command in [AccountCommand::Deposit(100), AccountCommand::Withdraw(30), AccountCommand::Withdraw(500)] {
        match accounts.execute(id, &command, &CommandContext::new()).await {
            Ok(done) => println!("{command:?}: committed as version {}", done.version),
            Err(error) => println!("{command:?}: {error}"),
        }
    }
    let committed = accounts.load(id).await?;
    let stream = StreamKey { aggregate: Account::NAME.into(), id };
    progress.wait_for("balances", &stream, committed.version, Duration::from_secs(60)).await?;
    let cents: i64 = sqlx::query_scalar("select cents from balances where id = $1").bind(id).fetch_one(&pool).await?;
    println!("the read model is at version {}: {cents} cents", committed.version);

    stop.cancel();
    relay.await?;
    consumer.await??;
    Ok(())
}
