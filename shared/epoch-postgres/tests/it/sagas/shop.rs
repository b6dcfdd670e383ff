//! A shop: orders, stock, external services, and processes that run the fulfilment saga.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use async_trait::async_trait;
use epoch::{
    Aggregate, CommandContext, Envelope, FastPath, Metadata, Repository, Timestamp, Version,
    clock::{Clock, ManualClock},
    gate::DeliverySource,
    handler::Subscription,
    saga::Saga,
    store::Streamer,
};
use epoch_postgres::{
    CommandOutcome, EffectSender, HandlerError, PgSaga, PgStore, PgSubscription, PgTx, Progress, SagaCommands,
    SagaEffects, SagaTimers, SendError, saga, testkit::TestDatabase,
};
use futures::TryStreamExt;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::fulfilment::{Command, Effect, Fulfilment, Order, OrderCommand, OrderPlaced, Refusal, Stock, StockCommand};

/// Executes the saga's commands on the repositories of one process.
pub(super) struct Commands {
    pub(super) orders: Repository<Order, PgStore>,
    pub(super) stocks: Repository<Stock, PgStore>,
}

#[async_trait]
impl SagaCommands<Fulfilment> for Commands {
    async fn execute(
        &self,
        tx: &mut PgTx,
        command: &Command,
        context: &CommandContext,
    ) -> Result<CommandOutcome<Refusal>, HandlerError> {
        match command {
            Command::Order(id, command) => {
                CommandOutcome::from_executed(tx.execute(&self.orders, *id, command, context).await, Refusal::Order)
            }
            Command::Stock(id, command) => {
                CommandOutcome::from_executed(tx.execute(&self.stocks, *id, command, context).await, Refusal::Stock)
            }
        }
    }
}

/// How the payment and shipping services respond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServiceState {
    Accepting,
    Rejecting,
    Unavailable,
}

/// The payment and shipping services. They execute each idempotency key once.
pub(super) struct ExternalServices {
    pub(super) state: Mutex<ServiceState>,
    pub(super) done: Mutex<Vec<(Uuid, Effect)>>,
    pub(super) requested: Mutex<Vec<Uuid>>,
    /// While set, effects are executed and never answered.
    pub(super) silent: AtomicBool,
    pub(super) received: Notify,
}

impl ExternalServices {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(ServiceState::Accepting),
            done: Mutex::default(),
            requested: Mutex::default(),
            silent: AtomicBool::new(false),
            received: Notify::new(),
        })
    }

    pub(super) fn set(&self, state: ServiceState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    pub(super) fn done(&self) -> Vec<Effect> {
        self.done.lock().unwrap().iter().map(|(_, effect)| effect.clone()).collect()
    }

    pub(super) fn requested(&self) -> Vec<Uuid> {
        self.requested.lock().unwrap().clone()
    }
}

#[async_trait]
impl EffectSender<Fulfilment> for ExternalServices {
    async fn send(&self, effect: &Effect, key: Uuid, _: Option<&Metadata>) -> Result<u64, SendError> {
        self.requested.lock().unwrap().push(key);
        let state = *self.state.lock().unwrap();
        match state {
            ServiceState::Unavailable => return Err(SendError::Unavailable { detail: "away".into() }),
            // An executed effect stays executed and is answered again.
            ServiceState::Rejecting if !self.done.lock().unwrap().iter().any(|(known, _)| *known == key) => {
                return Err(SendError::Refused { detail: "no".into() });
            }
            ServiceState::Rejecting | ServiceState::Accepting => {}
        }
        let mut done = self.done.lock().unwrap().clone();
        if !done.iter().any(|(known, _)| *known == key) {
            done.push((key, effect.clone()));
            *self.done.lock().unwrap() = done;
        }
        if self.silent.load(Ordering::SeqCst) {
            self.received.notify_one();
            std::future::pending::<()>().await;
        }
        Ok(1)
    }
}

/// One process with its store, subscription and workers.
pub(super) struct Process {
    pub(super) store: PgStore,
    pub(super) orders: Repository<Order, PgStore>,
    pub(super) stocks: Repository<Stock, PgStore>,
    pub(super) gate: PgSubscription,
    pub(super) timers: SagaTimers<Fulfilment>,
    pub(super) effects: SagaEffects<Fulfilment>,
}

pub(super) struct Shop {
    pub(super) database: TestDatabase,
    pub(super) clock: Arc<ManualClock>,
    pub(super) services: Arc<ExternalServices>,
    pub(super) process: Process,
}

pub(super) const START: i64 = 1_700_000_000_000;

pub(super) async fn process(
    database: &TestDatabase,
    clock: &Arc<ManualClock>,
    services: &Arc<ExternalServices>,
) -> Process {
    let pool = database.epoch().await;
    let (store, appender) = PgStore::new(pool.clone(), FastPath::new());
    tokio::spawn(appender.run());
    let (orders, stocks) = (Repository::new(store.clone()), Repository::new(store.clone()));
    let commands = Commands { orders: orders.clone(), stocks: stocks.clone() };
    let saga = Arc::new(PgSaga::new(Fulfilment, commands).with_clock(Arc::clone(clock) as Arc<dyn Clock>));
    let gate = PgSubscription::new(Arc::clone(&saga) as _, store.clone(), Progress::new(pool));
    let timers = SagaTimers::new(Arc::clone(&saga), store.clone());
    let effects = SagaEffects::new(saga, store.clone(), Arc::clone(services) as _);
    Process { store, orders, stocks, gate, timers, effects }
}

impl Shop {
    pub(super) async fn open() -> Self {
        let database = TestDatabase::create().await;
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(START)));
        let services = ExternalServices::new();
        let process = process(&database, &clock, &services).await;
        Self { database, clock, services, process }
    }

    /// Opens a shop and places an order of 3 items, of which `available` are in stock. Returns the shop, the order and
    /// the item.
    pub(super) async fn with_order(available: i64) -> (Self, Uuid, Uuid) {
        let shop = Self::open().await;
        let (order, item) = (Uuid::now_v7(), Uuid::now_v7());
        shop.fill(item, available).await;
        shop.place(order, item, 3).await;
        (shop, order, item)
    }

    pub(super) async fn another_process(&self) -> Process {
        process(&self.database, &self.clock, &self.services).await
    }

    pub(super) fn pass(&self, millis: i64) {
        self.clock.set(Timestamp::from_millis(self.clock.now().as_millis() + millis));
    }

    pub(super) async fn fill(&self, item: Uuid, quantity: i64) {
        self.process.stocks.execute(item, &StockCommand::Fill(quantity), &CommandContext::new()).await.unwrap();
    }

    pub(super) async fn place(&self, order: Uuid, item: Uuid, quantity: i64) {
        let placed = OrderPlaced { item, quantity, cents: 500 };
        self.order(order, OrderCommand::Place(placed)).await;
    }

    pub(super) async fn order(&self, order: Uuid, command: OrderCommand) {
        let context = CommandContext::at(self.clock.now());
        self.process.orders.execute(order, &command, &context).await.unwrap();
    }

    pub(super) async fn events(&self, order: Uuid) -> Vec<Arc<Envelope>> {
        let events = self.process.store.stream(Order::NAME, order, Version::ZERO);
        events.map_ok(Arc::new).try_collect().await.unwrap()
    }

    pub(super) async fn names(&self, order: Uuid) -> Vec<String> {
        self.events(order).await.iter().map(|event| event.event_name.to_string()).collect()
    }

    pub(super) async fn deliver(&self, order: Uuid) {
        let events = self.events(order).await;
        self.process.gate.deliver(&events, DeliverySource::Bus).await.unwrap();
    }

    pub(super) async fn stock(&self, item: Uuid) -> Stock {
        Stock::clone(&*self.process.stocks.load(item).await.unwrap().state)
    }

    pub(super) async fn status(&self, order: Uuid) -> Option<saga::SagaStatus> {
        saga::status(&self.process.store, Fulfilment::NAME, &order.to_string()).await.unwrap()
    }

    pub(super) async fn phase(&self, order: Uuid) -> Option<String> {
        self.status(order).await.map(|status| status.phase)
    }

    pub(super) async fn close(self) {
        self.database.drop().await;
    }
}

/// Polls a future at most `polls` times and then drops it, as when its process is killed. Returns its result if it was
/// ready.
pub(super) async fn killed<T>(polls: u32, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|context: &mut Context<'_>| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}
