//! Transactions over several aggregates and the caller's own tables.

use async_trait::async_trait;
use epoch::{
    Batch, CommandContext, ExecuteError, Position, Repository,
    gate::DeliverySource,
    handler::{EventHandler, Subscription},
    store::Streamer,
};
use epoch_postgres::{HandlerError, PgStore, PgSubscription, PgTx, TxError};
use futures::{FutureExt, TryStreamExt};
use std::sync::Arc;
use uuid::Uuid;

use crate::account::{Account, AccountCommand, AccountError, AccountEvent, Bank};

#[derive(Debug, thiserror::Error)]
enum TransferError {
    #[error(transparent)]
    Execute(#[from] ExecuteError<AccountError>),
    #[error(transparent)]
    Tx(#[from] TxError),
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

async fn transfer(bank: &Bank, from: Uuid, to: Uuid, amount: i64) -> Result<(), TransferError> {
    let accounts = bank.accounts.clone();
    bank.store
        .transaction(move |tx: &mut PgTx| {
            let accounts = accounts.clone();
            async move {
                let context = CommandContext::new();
                tx.execute(&accounts, to, &AccountCommand::Deposit(amount), &context).await?;
                sqlx::query("insert into seen (id, version) values ($1, 0)").bind(to).execute(tx.connection()).await?;
                tx.execute(&accounts, from, &AccountCommand::Withdraw(amount), &context).await?;
                Ok(())
            }
            .boxed()
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_transfers_preserve_total_balance() {
    let bank = Arc::new(Bank::open().await);
    let ids: Vec<Uuid> = (0..4).map(|_| Uuid::now_v7()).collect();
    for id in &ids {
        bank.deposit(*id, 100).await;
    }
    let transfers = (0..40_usize).map(|round| {
        let (bank, from, to) = (Arc::clone(&bank), ids[round % 4], ids[(round * 7 + 1) % 4]);
        tokio::spawn(async move { transfer(&bank, from, to, 30).await })
    });
    let mut done: i64 = 0;
    for result in futures::future::join_all(transfers).await {
        match result.unwrap() {
            Ok(()) => done += 1,
            Err(TransferError::Execute(ExecuteError::Rejected(_))) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let balances = bank.folded().await;
    assert_eq!(balances.iter().map(|(_, balance)| balance).sum::<i64>(), 400);
    assert!(balances.iter().all(|(_, balance)| *balance >= 0));
    let rows: i64 = sqlx::query_scalar("select count(*) from seen").fetch_one(bank.store.pool()).await.unwrap();
    assert_eq!(rows, done, "the caller's rows commit and roll back with the events");
    Arc::into_inner(bank).unwrap().close().await;
}

/// Deposits a tenth of every deposit on a savings account.
struct SavingsSaga {
    accounts: Repository<Account, PgStore>,
    savings: Uuid,
}

#[async_trait]
impl EventHandler<PgTx> for SavingsSaga {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        "savings"
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &["account"]
    }

    async fn handle(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        for event in events.iter().filter(|event| event.aggregate_id != self.savings) {
            if let AccountEvent::Deposited(deposited) = event.decode()? {
                let context = CommandContext::caused_by(event, "saga:savings");
                let put_aside = AccountCommand::Deposit(deposited.amount / 10);
                tx.execute(&self.accounts, self.savings, &put_aside, &context).await?;
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn handler_commands_once_under_repeated_delivery() {
    let bank = Bank::open().await;
    let savings = Uuid::now_v7();
    for round in 0..30 {
        bank.deposit(Uuid::from_u128(round % 5), 100).await;
    }
    let events: Vec<_> = bank.store.stream_all(&[], Position::START).map_ok(Arc::new).try_collect().await.unwrap();
    let (store, other) = bank.another_process().await;
    let gates = (0..6).map(|process| {
        let (store, accounts) = if process % 2 == 0 { (&bank.store, &bank.accounts) } else { (&store, &other) };
        let saga = SavingsSaga { accounts: accounts.clone(), savings };
        PgSubscription::new(Arc::new(saga), store.clone(), bank.progress.clone())
    });
    let deliveries = gates.map(|gate| {
        let events = events.clone();
        tokio::spawn(async move {
            for piece in events.chunks(4) {
                gate.deliver(piece, DeliverySource::Bus).await.unwrap();
            }
        })
    });
    for delivery in futures::future::join_all(deliveries).await {
        delivery.unwrap();
    }
    let saved = Repository::<Account, _>::new(bank.store.clone()).load(savings).await.unwrap();
    assert_eq!((saved.state.balance, saved.version.get()), (300, 30));
    let caused: i64 =
        sqlx::query_scalar("select count(distinct metadata->>'causation_id') from events where aggregate_id = $1")
            .bind(savings)
            .fetch_one(bank.store.pool())
            .await
            .unwrap();
    assert_eq!(caused, 30, "one event per deposit");
    bank.close().await;
}
