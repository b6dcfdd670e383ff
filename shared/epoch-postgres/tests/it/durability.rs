//! Durability of commits, and cleanup after cancelled callers.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use async_trait::async_trait;
use epoch::{
    Batch, CommandContext, FastPath, Repository, gate::DeliverySource, handler::EventHandler, handler::Subscription,
};
use epoch_postgres::{HandlerError, PgStore, PgSubscription, PgTx, begin};
use sqlx::{PgPool, postgres::PgPoolOptions};
use uuid::Uuid;

use crate::account::{Account, AccountCommand, BalancesHandler, Bank};

/// Records the write position of the server's log during its transaction. If `to` is set, deposits on that account.
struct Forwards {
    accounts: Repository<Account, PgStore>,
    to: Option<Uuid>,
    open_at: Mutex<i64>,
}

struct Handler(Arc<Forwards>);

const WRITTEN: &str = "select (pg_current_wal_insert_lsn() - '0/0')::bigint";
const ON_DISK: &str = "select (pg_current_wal_flush_lsn() - '0/0')::bigint";

#[async_trait]
impl EventHandler<PgTx> for Handler {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        "forwards"
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &["account"]
    }

    async fn handle(&self, tx: &mut PgTx, _: &Batch) -> Result<(), HandlerError> {
        if let Some(to) = self.0.to {
            tx.execute(&self.0.accounts, to, &AccountCommand::Deposit(1), &CommandContext::new()).await?;
        }
        // Before the commit.
        let at: i64 = sqlx::query_scalar(WRITTEN).fetch_one(tx.connection()).await?;
        *self.0.open_at.lock().unwrap() = at;
        Ok(())
    }
}

/// Counts in how many of 20 fast-path deliveries the commit was on disk when the delivery returned.
async fn count_commits_on_disk(bank: &Bank, to: Option<Uuid>) -> usize {
    let forwards = Arc::new(Forwards { accounts: bank.accounts.clone(), to, open_at: Mutex::default() });
    let gate = PgSubscription::new(Arc::new(Handler(Arc::clone(&forwards))), bank.store.clone(), bank.progress.clone());
    let mut found = 0;
    for _ in 0..20 {
        let from = Uuid::now_v7();
        bank.deposit(from, 1).await;
        let event = bank.log().await.into_iter().find(|event| event.aggregate_id == from).unwrap();
        assert_eq!(gate.deliver(&[event], DeliverySource::FastPath).await.unwrap().applied, 1);
        let on_disk: i64 = sqlx::query_scalar(ON_DISK).fetch_one(bank.store.pool()).await.unwrap();
        found += usize::from(on_disk > *forwards.open_at.lock().unwrap());
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn fast_path_commit_with_appends_is_on_disk() {
    let bank = Bank::open().await;
    assert_eq!(count_commits_on_disk(&bank, Some(Uuid::now_v7())).await, 20);
    // Without an append the commit does not wait, so the assertion above is able to fail.
    assert!(count_commits_on_disk(&bank, None).await < 20);
    bank.close().await;
}

/// Polls a future at most `polls` times and then drops it. Returns whether it was ready.
async fn poll_then_cancel(polls: u32, future: impl Future) -> bool {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|context: &mut Context<'_>| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        future.as_mut().poll(context).map(|_| true)
    })
    .await
}

/// Returns whether the pool's only connection has no open transaction, and its `synchronous_commit` setting.
async fn connection_state(pool: &PgPool) -> (bool, String) {
    // Two statements have different transaction ids, unless a transaction was left open.
    let mut connection = pool.acquire().await.unwrap();
    let number = "select pg_current_xact_id()::text";
    let first: String = sqlx::query_scalar(number).fetch_one(&mut *connection).await.unwrap();
    let second: String = sqlx::query_scalar(number).fetch_one(&mut *connection).await.unwrap();
    let durability: String = sqlx::query_scalar("show synchronous_commit").fetch_one(&mut *connection).await.unwrap();
    (first != second, durability)
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_begin_leaves_no_open_transaction() {
    let bank = Bank::open().await;
    let options = bank.store.pool().connect_options().as_ref().clone();
    let pool = PgPoolOptions::new().max_connections(1).test_before_acquire(false).connect_with(options).await.unwrap();
    for polls in 0..12 {
        // Each time on a warm connection, cancelled at another point.
        sqlx::query("select 1").execute(&pool).await.unwrap();
        let opening = begin(&pool, "begin; set local synchronous_commit to off");
        let _ = poll_then_cancel(polls, opening).await;
        assert_eq!(connection_state(&pool).await, (true, "on".to_owned()), "cancelled after {polls} polls");
    }
    // The next writes are committed.
    let (store, appender) = PgStore::new(pool.clone(), FastPath::new());
    tokio::spawn(appender.run());
    let accounts = Repository::<Account, _>::new(store.clone());
    let id = Uuid::now_v7();
    for polls in 0..12 {
        let _ = poll_then_cancel(polls, store.begin()).await;
        accounts.execute(id, &AccountCommand::Deposit(1), &CommandContext::new()).await.unwrap();
    }
    pool.close().await;
    let fresh = Repository::<Account, _>::new(bank.store.clone());
    assert_eq!(fresh.load(id).await.unwrap().state.balance, 12);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_delivery_leaves_no_open_transaction() {
    let bank = Bank::open().await;
    let options = bank.store.pool().connect_options().as_ref().clone();
    let pool = PgPoolOptions::new().max_connections(1).test_before_acquire(false).connect_with(options).await.unwrap();
    let (store, _) = PgStore::new(pool.clone(), FastPath::new());
    let handler = Arc::new(BalancesHandler(Arc::clone(&bank.balances)));
    let gate = PgSubscription::new(handler, store, bank.progress.clone());
    let id = Uuid::now_v7();
    for polls in 0..30 {
        bank.deposit(id, 1).await;
        let log = bank.log().await;
        let _ = poll_then_cancel(polls, gate.deliver(&log, DeliverySource::FastPath)).await;
        assert_eq!(connection_state(&pool).await, (true, "on".to_owned()), "cancelled after {polls} polls");
    }
    // Some deliveries were committed; the bus delivers the rest.
    gate.deliver(&bank.log().await, DeliverySource::Bus).await.unwrap();
    pool.close().await;
    assert_eq!(bank.projected().await, bank.folded().await);
    assert_eq!(bank.seen(id).await, (1..=30).collect::<Vec<_>>());
    bank.close().await;
}
