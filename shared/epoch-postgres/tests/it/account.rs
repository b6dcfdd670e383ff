//! The test aggregate, its projection, and a fixture with both on a fresh database.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use async_trait::async_trait;
use epoch::{
    Aggregate, Batch, CommandContext, Envelope, FastPath, Position, Repository, handler::EventHandler, store::Streamer,
};
use epoch_postgres::{HandlerError, PgStore, PgSubscription, PgTx, Progress, testkit::TestDatabase};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, Row};
use uuid::Uuid;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Deposited {
    pub(crate) amount: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Withdrawn {
    pub(crate) amount: i64,
}

/// An event that increments the version and changes no state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Noted {
    pub(crate) text: String,
}

const DEPOSITED: &str = r#"{"type":"record","name":"Deposited","fields":[{"name":"amount","type":"long"}]}"#;
const WITHDRAWN: &str = r#"{"type":"record","name":"Withdrawn","fields":[{"name":"amount","type":"long"}]}"#;
const NOTED: &str = r#"{"type":"record","name":"Noted","fields":[{"name":"text","type":"string"}]}"#;

epoch::events! {
    pub(crate) enum AccountEvent {
        Deposited = [DEPOSITED],
        Withdrawn = [WITHDRAWN],
        Noted = [NOTED],
    }
}

#[derive(Debug, Clone)]
pub(crate) enum AccountCommand {
    Deposit(i64),
    Withdraw(i64),
    Note(String),
    /// Appends no event when the balance is already equal.
    SetBalance(i64),
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum AccountError {
    #[error("balance is {balance}, {asked} is too much")]
    NotEnough { balance: i64, asked: i64 },
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) balance: i64,
}

impl Aggregate for Account {
    const NAME: &'static str = "account";
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Error = AccountError;

    fn decide(&self, command: &AccountCommand) -> Result<Vec<AccountEvent>, AccountError> {
        match command {
            AccountCommand::Deposit(amount) => Ok(vec![Deposited { amount: *amount }.into()]),
            AccountCommand::Withdraw(amount) if *amount > self.balance => {
                Err(AccountError::NotEnough { balance: self.balance, asked: *amount })
            }
            AccountCommand::Withdraw(amount) => Ok(vec![Withdrawn { amount: *amount }.into()]),
            AccountCommand::Note(text) => Ok(vec![Noted { text: text.clone() }.into()]),
            AccountCommand::SetBalance(wanted) => Ok(match wanted - self.balance {
                0 => vec![],
                more @ 1.. => vec![Deposited { amount: more }.into()],
                less => vec![Withdrawn { amount: -less }.into()],
            }),
        }
    }

    fn evolve(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Deposited(event) => self.balance += event.amount,
            AccountEvent::Withdrawn(event) => self.balance -= event.amount,
            AccountEvent::Noted(_) => {}
        }
    }
}

/// A projection into two tables: the balances, and every applied event in order. The second shows duplicates and
/// reordering.
pub(crate) struct Balances {
    /// While set, notes with certain texts fail, panic, hang or sleep.
    pub(crate) poison: AtomicBool,
    pub(crate) handled: AtomicU64,
    /// Revision 2 multiplies every amount by 100.
    pub(crate) revision: u32,
}

impl Balances {
    pub(crate) fn new() -> Arc<Self> {
        Self::of_revision(1)
    }

    pub(crate) fn of_revision(revision: u32) -> Arc<Self> {
        Arc::new(Self { poison: AtomicBool::new(false), handled: AtomicU64::new(0), revision })
    }
}

pub(crate) const TABLES: &str = "create table balances (id uuid primary key, balance bigint not null); \
     create table seen (number bigint generated always as identity, id uuid not null, version bigint not null)";

pub(crate) struct BalancesHandler(pub Arc<Balances>);

#[async_trait]
impl EventHandler<PgTx> for BalancesHandler {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        "balances"
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &["account"]
    }

    fn tables(&self) -> &'static [&'static str] {
        &["balances", "seen"]
    }

    fn revision(&self) -> u32 {
        self.0.revision
    }

    async fn handle(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        for event in events {
            let delta = match event.decode::<AccountEvent>()? {
                AccountEvent::Deposited(event) => event.amount,
                AccountEvent::Withdrawn(event) => -event.amount,
                AccountEvent::Noted(note) if note.text == "panic" && self.0.poison.load(Ordering::SeqCst) => {
                    panic!("poisoned note")
                }
                AccountEvent::Noted(note) if note.text == "hang" && self.0.poison.load(Ordering::SeqCst) => {
                    std::future::pending::<()>().await;
                    0
                }
                AccountEvent::Noted(note) if note.text == "sleep" && self.0.poison.load(Ordering::SeqCst) => {
                    sqlx::query("select pg_sleep(600)").execute(tx.connection()).await?;
                    0
                }
                AccountEvent::Noted(note) if note.text == "poison" && self.0.poison.load(Ordering::SeqCst) => {
                    return Err(HandlerError::refused("poison"));
                }
                AccountEvent::Noted(_) => 0,
            };
            sqlx::query("insert into seen (id, version) values ($1, $2)")
                .bind(event.aggregate_id)
                .bind(epoch_postgres::version_number(event.version))
                .execute(tx.connection())
                .await?;
            sqlx::query(
                "insert into balances values ($1, $2) on conflict (id) do update set balance = balances.balance + $2",
            )
            .bind(event.aggregate_id)
            .bind(if self.0.revision == 2 { delta * 100 } else { delta })
            .execute(tx.connection())
            .await?;
            self.0.handled.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }
}

pub(crate) struct Bank {
    pub(crate) database: TestDatabase,
    pub(crate) store: PgStore,
    pub(crate) accounts: Repository<Account, PgStore>,
    pub(crate) progress: Progress,
    pub(crate) balances: Arc<Balances>,
}

impl Bank {
    pub(crate) async fn open() -> Self {
        let database = TestDatabase::create().await;
        let pool = database.epoch().await;
        sqlx::raw_sql(TABLES).execute(&pool).await.unwrap();
        Self::on(database, pool)
    }

    fn on(database: TestDatabase, pool: PgPool) -> Self {
        let (store, appender) = PgStore::new(pool.clone(), FastPath::new());
        tokio::spawn(appender.run());
        let accounts = Repository::new(store.clone());
        Self { database, store, accounts, progress: Progress::new(pool), balances: Balances::new() }
    }

    /// Opens a second store on the same database, as another process would.
    pub(crate) async fn another_process(&self) -> (PgStore, Repository<Account, PgStore>) {
        let pool = self.database.epoch().await;
        let (store, appender) = PgStore::new(pool, FastPath::new());
        tokio::spawn(appender.run());
        (store.clone(), Repository::new(store))
    }

    pub(crate) fn subscription(&self) -> PgSubscription {
        self.subscription_of(&self.balances)
    }

    pub(crate) fn subscription_of(&self, balances: &Arc<Balances>) -> PgSubscription {
        PgSubscription::new(Arc::new(BalancesHandler(Arc::clone(balances))), self.store.clone(), self.progress.clone())
    }

    /// Returns all events in position order.
    pub(crate) async fn log(&self) -> Vec<Arc<Envelope>> {
        self.store.stream_all(&[], Position::START).map_ok(Arc::new).try_collect().await.unwrap()
    }

    pub(crate) async fn deposit(&self, id: Uuid, amount: i64) {
        self.accounts.execute(id, &AccountCommand::Deposit(amount), &CommandContext::new()).await.unwrap();
    }

    pub(crate) async fn note(&self, id: Uuid, text: &str) {
        self.accounts.execute(id, &AccountCommand::Note(text.into()), &CommandContext::new()).await.unwrap();
    }

    /// Returns the projected balances, ordered by account.
    pub(crate) async fn projected(&self) -> Vec<(Uuid, i64)> {
        let rows =
            sqlx::query("select id, balance from balances order by id").fetch_all(self.store.pool()).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Returns the versions that the projection has applied, in the order of application.
    pub(crate) async fn seen(&self, id: Uuid) -> Vec<i64> {
        let rows = sqlx::query("select version from seen where id = $1 order by number").bind(id);
        rows.fetch_all(self.store.pool()).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// Returns the balances folded from the streams, ordered by account.
    pub(crate) async fn folded(&self) -> Vec<(Uuid, i64)> {
        let rows =
            sqlx::query("select distinct aggregate_id from events order by 1").fetch_all(self.store.pool()).await;
        let mut balances = Vec::new();
        let fresh = Repository::<Account, _>::new(self.store.clone()).with_cache(0);
        for row in rows.unwrap() {
            let id: Uuid = row.get(0);
            balances.push((id, fresh.load(id).await.unwrap().state.balance));
        }
        balances
    }

    pub(crate) async fn close(self) {
        self.database.drop().await;
    }
}
