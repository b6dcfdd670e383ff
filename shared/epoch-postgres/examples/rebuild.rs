//! Corrects a read model and rebuilds it while it serves.
//!
//! Run with `DATABASE_URL=… cargo run -p epoch-postgres --example rebuild`. Revision 1 of the handler ignores
//! withdrawals. Revision 2 is correct: it builds a second table from the log, and one transaction swaps the two. The
//! tables are in the schema `epoch_example_rebuild`.

use std::sync::Arc;

use async_trait::async_trait;
use epoch::{Aggregate, Batch, CommandContext, FastPath, Position, Repository, handler::EventHandler};
use epoch_postgres::{HandlerError, PgStore, PgSubscription, PgTx, Progress, Rebuild, migrate, replay};
use sqlx::{PgPool, migrate::Migrator};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    bank::{Account, AccountCommand, AccountEvent},
    database::connect_to,
};

#[path = "../../epoch/examples/bank.rs"]
#[allow(dead_code, reason = "this example uses a part of it")]
mod bank;
#[path = "support/database.rs"]
mod database;

const SCHEMA: &str = "epoch_example_rebuild";
const ADD: &str = "insert into balances as b values ($1, $2) on conflict (id) do update set cents = b.cents + $2";

struct Balances {
    revision: u32,
}

#[async_trait]
impl EventHandler<PgTx> for Balances {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        "balances"
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &[Account::NAME]
    }

    fn tables(&self) -> &'static [&'static str] {
        &["balances"]
    }

    fn revision(&self) -> u32 {
        self.revision
    }

    async fn handle(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        for event in events {
            let mut cents = event.decode::<AccountEvent>()?.cents();
            if self.revision == 1 {
                cents = cents.max(0); // the bug
            }
            sqlx::query(ADD).bind(event.aggregate_id).bind(cents).execute(tx.connection()).await?;
        }
        Ok(())
    }
}

async fn print_totals(pool: &PgPool, label: &str) -> Result<(), sqlx::Error> {
    let (accounts, cents): (i64, i64) =
        sqlx::query_as("select count(*), coalesce(sum(cents), 0)::bigint from balances").fetch_one(pool).await?;
    println!("{label}: {accounts} accounts, {cents} cents");
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let pool = connect_to(SCHEMA).await?;
    // The tables of an earlier run would have revision 2 already.
    sqlx::raw_sql("drop schema if exists epoch_example_rebuild cascade").execute(&pool).await?;
    migrate(&pool, SCHEMA, &Migrator::DEFAULT).await?;
    sqlx::raw_sql("create table balances (id uuid primary key, cents bigint not null)").execute(&pool).await?;
    let (store, appender) = PgStore::new(pool.clone(), FastPath::new());
    tokio::spawn(appender.run());
    let subscription =
        |revision| PgSubscription::new(Arc::new(Balances { revision }), store.clone(), Progress::new(pool.clone()));

    let accounts = Repository::<Account, _>::new(store.clone());
    for _ in 0..1_000 {
        let id = Uuid::now_v7();
        accounts.execute(id, &AccountCommand::Deposit(100), &CommandContext::new()).await?;
        accounts.execute(id, &AccountCommand::Withdraw(30), &CommandContext::new()).await?;
    }
    replay(&store, &subscription(1), Position::START).await?;
    print_totals(&pool, "revision 1").await?;

    let rebuild = Rebuild::new(subscription(2), None);
    let summary = rebuild
        .run(&CancellationToken::new(), |progress| {
            println!("  {} of {} events, {} events/s", progress.done, progress.total, progress.rate());
        })
        .await?;
    print_totals(&pool, "revision 2").await?;
    println!("generation {} serves, built from {} events", summary.generation, summary.applied);
    Ok(())
}
