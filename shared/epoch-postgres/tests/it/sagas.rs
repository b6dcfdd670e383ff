//! The fulfilment of orders on a real database: killed anywhere, raced by others, and always what a sequential run
//! comes to.

use std::{
    collections::HashMap,
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use async_trait::async_trait;
use epoch::{
    Aggregate, Batch, CommandContext, Envelope, FastPath, Metadata, Repository, Timestamp, Version,
    clock::{Clock, ManualClock},
    gate::DeliverySource,
    handler::{EventHandler, Subscription},
    retry::RetryPolicy,
    saga::Saga,
    store::Streamer,
    testkit::{GivenSaga, given_saga},
};
use epoch_postgres::{
    Commanded, EffectSender, HandlerError, PgSaga, PgStore, PgSubscription, PgTx, Progress, SagaCommands, SagaEffects,
    SagaTimers, SendError, saga, testkit::TestDatabase,
};
use futures::TryStreamExt;
use proptest::{prelude::*, test_runner::TestRunner};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::fulfilment::{
    Command, Effect, Fulfilment, Order, OrderCommand, OrderEvent, OrderPlaced, PAYMENT_MILLIS, Refusal, Stock,
    StockCommand,
};

/// Executes the saga's commands on a process's repositories.
struct Commands {
    orders: Repository<Order, PgStore>,
    stocks: Repository<Stock, PgStore>,
}

#[async_trait]
impl SagaCommands<Fulfilment> for Commands {
    async fn execute(
        &self,
        tx: &mut PgTx,
        command: &Command,
        context: &CommandContext,
    ) -> Result<Commanded<Refusal>, HandlerError> {
        match command {
            Command::Order(id, command) => {
                Commanded::from_executed(tx.execute(&self.orders, *id, command, context).await, Refusal::Order)
            }
            Command::Stock(id, command) => {
                Commanded::from_executed(tx.execute(&self.stocks, *id, command, context).await, Refusal::Stock)
            }
        }
    }
}

/// What the other side says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Willing,
    Refusing,
    Away,
}

/// Payment and shipping: does each idempotency key once.
struct Others {
    mood: Mutex<Mood>,
    done: Mutex<Vec<(Uuid, Effect)>>,
    asked: Mutex<Vec<Uuid>>,
    /// While set, does what is asked and never answers.
    mute: AtomicBool,
    heard: Notify,
}

impl Others {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            mood: Mutex::new(Mood::Willing),
            done: Mutex::default(),
            asked: Mutex::default(),
            mute: AtomicBool::new(false),
            heard: Notify::new(),
        })
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }

    fn done(&self) -> Vec<Effect> {
        self.done.lock().unwrap().iter().map(|(_, effect)| effect.clone()).collect()
    }

    fn asked(&self) -> Vec<Uuid> {
        self.asked.lock().unwrap().clone()
    }
}

#[async_trait]
impl EffectSender<Fulfilment> for Others {
    async fn send(&self, effect: &Effect, key: Uuid, _: Option<&Metadata>) -> Result<u64, SendError> {
        self.asked.lock().unwrap().push(key);
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Away => return Err(SendError::Unavailable { detail: "away".into() }),
            // What was done stays done, whatever is said later.
            Mood::Refusing if !self.done.lock().unwrap().iter().any(|(known, _)| *known == key) => {
                return Err(SendError::Refused { detail: "no".into() });
            }
            Mood::Refusing | Mood::Willing => {}
        }
        let mut done = self.done.lock().unwrap().clone();
        if !done.iter().any(|(known, _)| *known == key) {
            done.push((key, effect.clone()));
            *self.done.lock().unwrap() = done;
        }
        if self.mute.load(Ordering::SeqCst) {
            self.heard.notify_one();
            std::future::pending::<()>().await;
        }
        Ok(1)
    }
}

/// One process: its store, its subscription and its workers.
struct Process {
    store: PgStore,
    orders: Repository<Order, PgStore>,
    stocks: Repository<Stock, PgStore>,
    gate: PgSubscription,
    timers: SagaTimers<Fulfilment>,
    effects: SagaEffects<Fulfilment>,
}

struct Shop {
    database: TestDatabase,
    clock: Arc<ManualClock>,
    others: Arc<Others>,
    process: Process,
}

const START: i64 = 1_700_000_000_000;

async fn process(database: &TestDatabase, clock: &Arc<ManualClock>, others: &Arc<Others>) -> Process {
    let pool = database.epoch().await;
    let (store, appender) = PgStore::new(pool.clone(), FastPath::new());
    tokio::spawn(appender.run());
    let (orders, stocks) = (Repository::new(store.clone()), Repository::new(store.clone()));
    let commands = Commands { orders: orders.clone(), stocks: stocks.clone() };
    let saga = Arc::new(PgSaga::new(Fulfilment, commands).with_clock(Arc::clone(clock) as Arc<dyn Clock>));
    let gate = PgSubscription::new(Arc::clone(&saga) as _, store.clone(), Progress::new(pool));
    let timers = SagaTimers::new(Arc::clone(&saga), store.clone());
    let effects = SagaEffects::new(saga, store.clone(), Arc::clone(others) as _);
    Process { store, orders, stocks, gate, timers, effects }
}

impl Shop {
    async fn open() -> Self {
        let database = TestDatabase::create().await;
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(START)));
        let others = Others::new();
        let process = process(&database, &clock, &others).await;
        Self { database, clock, others, process }
    }

    async fn another_process(&self) -> Process {
        process(&self.database, &self.clock, &self.others).await
    }

    fn pass(&self, millis: i64) {
        self.clock.set(Timestamp::from_millis(self.clock.now().as_millis() + millis));
    }

    async fn fill(&self, item: Uuid, quantity: i64) {
        self.process.stocks.execute(item, &StockCommand::Fill(quantity), &CommandContext::new()).await.unwrap();
    }

    async fn place(&self, order: Uuid, item: Uuid, quantity: i64) {
        let placed = OrderPlaced { item, quantity, cents: 500 };
        self.order(order, OrderCommand::Place(placed)).await;
    }

    async fn order(&self, order: Uuid, command: OrderCommand) {
        let context = CommandContext::at(self.clock.now());
        self.process.orders.execute(order, &command, &context).await.unwrap();
    }

    async fn events(&self, order: Uuid) -> Vec<Arc<Envelope>> {
        let events = self.process.store.stream(Order::NAME, order, Version::ZERO);
        events.map_ok(Arc::new).try_collect().await.unwrap()
    }

    async fn names(&self, order: Uuid) -> Vec<String> {
        self.events(order).await.iter().map(|event| event.event_name.to_string()).collect()
    }

    async fn deliver(&self, order: Uuid) {
        let events = self.events(order).await;
        self.process.gate.deliver(&events, DeliverySource::Bus).await.unwrap();
    }

    async fn stock(&self, item: Uuid) -> Stock {
        Stock::clone(&*self.process.stocks.load(item).await.unwrap().state)
    }

    async fn status(&self, order: Uuid) -> Option<saga::SagaStatus> {
        saga::status(&self.process.store, Fulfilment::NAME, &order.to_string()).await.unwrap()
    }

    async fn phase(&self, order: Uuid) -> Option<String> {
        self.status(order).await.map(|status| status.phase)
    }

    async fn close(self) {
        self.database.drop().await;
    }
}

/// Lets a future go on `polls` times and then kills it, as a process dies; its result if it was faster.
async fn killed<T>(polls: u32, future: impl Future<Output = T>) -> Option<T> {
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

#[tokio::test(flavor = "multi_thread")]
async fn an_order_goes_all_the_way() {
    let shop = Shop::open().await;
    let (order, item) = (Uuid::now_v7(), Uuid::now_v7());
    shop.fill(item, 10).await;
    shop.place(order, item, 3).await;
    shop.deliver(order).await;
    assert_eq!(shop.others.done(), [], "nothing is sent by the gate");
    assert_eq!(shop.process.effects.send_due().await.unwrap(), 1);
    assert_eq!(shop.process.effects.send_due().await.unwrap(), 1);
    assert_eq!(shop.names(order).await, ["OrderPlaced", "OrderConfirmed"]);
    assert_eq!(shop.others.done(), [Effect::Charge { order, cents: 500 }, Effect::Ship { order }]);
    assert_eq!(shop.stock(item).await.available, 7);
    shop.deliver(order).await;
    let status = shop.status(order).await.unwrap();
    assert_eq!((status.phase.as_str(), status.timers, status.effects), ("completed", 0, 0));
    let caused = &shop.events(order).await[1].metadata;
    assert_eq!(caused.correlation_id, shop.events(order).await[0].metadata.correlation_id);
    assert_eq!(caused.actor.as_deref(), Some("saga:fulfilment"));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_local_way_a_saga_decides_and_nothing_is_sent() {
    let shop = Shop::open().await;
    let (order, item) = (Uuid::now_v7(), Uuid::now_v7());
    shop.fill(item, 10).await;
    let serving = tokio::spawn(shop.process.store.local().serve(Arc::new(shop.process.gate.clone())));
    // The command answers when the local way has run.
    shop.place(order, item, 3).await;
    assert_eq!(shop.stock(item).await.available, 7);
    assert_eq!(shop.status(order).await.unwrap().effects, 1, "it waits in the outbox");
    assert!(shop.others.asked().is_empty());
    serving.abort();
    shop.close().await;
}

/// A handler with effects that no transaction can undo.
struct Outside(AtomicUsize);

#[async_trait]
impl EventHandler<PgTx> for Outside {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        "outside"
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &["order"]
    }

    fn allows_fast_path(&self) -> bool {
        false
    }

    async fn handle(&self, _: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        self.0.fetch_add(events.len(), Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gate_keeps_outside_effects_from_the_local_way_however_it_is_wired() {
    let shop = Shop::open().await;
    let order = Uuid::now_v7();
    let outside = Arc::new(Outside(AtomicUsize::new(0)));
    let progress = Progress::new(shop.process.store.pool().clone());
    let gate = PgSubscription::new(Arc::clone(&outside) as _, shop.process.store.clone(), progress);
    let serving = tokio::spawn(shop.process.store.local().serve(Arc::new(gate.clone())));
    shop.place(order, Uuid::now_v7(), 3).await;
    assert_eq!(outside.0.load(Ordering::SeqCst), 0);
    gate.deliver(&shop.events(order).await, DeliverySource::Bus).await.unwrap();
    assert_eq!(outside.0.load(Ordering::SeqCst), 1);
    serving.abort();
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_of_another_version_is_upgraded_or_refused_and_never_misread() {
    let shop = Shop::open().await;
    let (order, item) = (Uuid::now_v7(), Uuid::now_v7());
    shop.fill(item, 10).await;
    shop.place(order, item, 3).await;
    shop.deliver(order).await;
    let pool = shop.process.store.pool();
    let written = "update sagas set state_version = $1, body = jsonb_set(body::jsonb, '{state}', \
         jsonb_build_object('id', $2::text))::json";
    // The fulfilment knows how states of version 0 looked, and nothing of version 9.
    sqlx::query(written).bind(9).bind(order.to_string()).execute(pool).await.unwrap();
    assert_eq!(shop.process.effects.send_due().await.unwrap(), 0);
    let error: Option<String> = sqlx::query_scalar("select error from saga_effects").fetch_one(pool).await.unwrap();
    assert!(error.as_deref().is_some_and(|error| error.contains("can't be upgraded")), "{error:?}");
    sqlx::query(written).bind(0).bind(order.to_string()).execute(pool).await.unwrap();
    shop.pass(60_000);
    assert_eq!(shop.process.effects.send_due().await.unwrap(), 1);
    assert_eq!(shop.others.done(), [Effect::Charge { order, cents: 500 }]);
    let (version, step): (i32, String) =
        sqlx::query_as("select state_version, body->'state'->>'step' from sagas").fetch_one(pool).await.unwrap();
    assert_eq!((version, step.as_str()), (1, "Shipping"));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_an_input_and_parks_nothing() {
    let shop = Shop::open().await;
    let (order, item) = (Uuid::now_v7(), Uuid::now_v7());
    shop.fill(item, 2).await;
    shop.place(order, item, 3).await;
    shop.deliver(order).await;
    shop.deliver(order).await;
    assert_eq!(shop.names(order).await, ["OrderPlaced", "OrderRejected"]);
    assert_eq!(shop.stock(item).await, Stock { available: 2, ..Stock::default() });
    assert_eq!(epoch_postgres::dead_letters::list(&shop.process.gate, 10).await.unwrap(), []);
    assert_eq!(shop.process.effects.send_due().await.unwrap(), 0);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_the_saga_cannot_take_is_parked_and_leaves_nothing_behind() {
    let shop = Shop::open().await;
    let order = Uuid::now_v7();
    shop.place(order, Uuid::now_v7(), 0).await;
    let gate = shop.process.gate.clone().with_retry(RetryPolicy { attempts: 1, ..RetryPolicy::HANDLER });
    gate.deliver(&shop.events(order).await, DeliverySource::Bus).await.unwrap();
    let letters = epoch_postgres::dead_letters::list(&gate, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].error.as_deref(), Some("order quantity is zero"));
    assert_eq!(shop.status(order).await, None);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_out_undoes_in_reverse_order_and_waits_for_the_refund() {
    let shop = Shop::open().await;
    let (order, item) = (Uuid::now_v7(), Uuid::now_v7());
    shop.fill(item, 3).await;
    shop.place(order, item, 3).await;
    shop.deliver(order).await;
    shop.others.set(Mood::Away);
    assert_eq!(shop.process.effects.send_due().await.unwrap(), 0);
    assert_eq!(shop.process.timers.fire_due().await.unwrap(), 0, "not yet due");
    shop.pass(PAYMENT_MILLIS);
    assert_eq!(shop.process.timers.fire_due().await.unwrap(), 1);
    assert_eq!(shop.process.timers.fire_due().await.unwrap(), 0);
    assert_eq!(shop.names(order).await, ["OrderPlaced", "OrderRejected"]);
    assert_eq!(shop.phase(order).await.as_deref(), Some("compensating"));
    shop.others.set(Mood::Willing);
    assert_eq!(shop.process.effects.send_due().await.unwrap(), 1);
    assert_eq!(shop.stock(item).await.available, 0, "released only when the money is back");
    assert_eq!(shop.process.effects.send_due().await.unwrap(), 1);
    assert_eq!(shop.stock(item).await.available, 3);
    assert_eq!(shop.others.done(), [Effect::Charge { order, cents: 500 }, Effect::Refund { order }]);
    assert_eq!(shop.phase(order).await.as_deref(), Some("completed"));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_after_sending_is_followed_by_one_that_sends_the_same_key() {
    let shop = Shop::open().await;
    let (order, item) = (Uuid::now_v7(), Uuid::now_v7());
    shop.fill(item, 3).await;
    shop.place(order, item, 3).await;
    shop.deliver(order).await;
    shop.others.mute.store(true, Ordering::SeqCst);
    tokio::select! {
        _ = shop.process.effects.send_due() => panic!("it got an answer"),
        () = shop.others.heard.notified() => {}
    }
    shop.others.mute.store(false, Ordering::SeqCst);
    let next = shop.another_process().await;
    assert_eq!(next.effects.send_due().await.unwrap(), 0, "it is on loan");
    shop.pass(60_000);
    assert_eq!(next.effects.send_due().await.unwrap(), 1);
    let asked = shop.others.asked();
    assert_eq!((asked.len(), asked[0]), (2, asked[1]));
    assert_eq!(shop.others.done(), [Effect::Charge { order, cents: 500 }]);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_taken_is_parked_and_released() {
    let shop = Shop::open().await;
    let (order, item) = (Uuid::now_v7(), Uuid::now_v7());
    shop.fill(item, 3).await;
    shop.place(order, item, 3).await;
    shop.deliver(order).await;
    assert_eq!(shop.process.effects.send_due().await.unwrap(), 1);
    // Shipped, but the body can't be read any more.
    let body: String =
        sqlx::query_scalar("select body::text from sagas").fetch_one(shop.process.store.pool()).await.unwrap();
    sqlx::query("update sagas set body = '{}'").execute(shop.process.store.pool()).await.unwrap();
    for _ in 0..5 {
        assert_eq!(shop.process.effects.send_due().await.unwrap(), 0);
        shop.pass(60_000);
    }
    let asked = shop.others.asked().len();
    assert_eq!(shop.process.effects.send_due().await.unwrap(), 0);
    assert_eq!(shop.others.asked().len(), asked, "parked: not asked any more");
    let parked = shop.status(order).await.unwrap().parked.unwrap();
    assert!(parked.contains("can't be read"), "{parked}");
    sqlx::query("update sagas set body = $1::json").bind(body).execute(shop.process.store.pool()).await.unwrap();
    let released = saga::release(&shop.process.store, Fulfilment::NAME, &order.to_string()).await.unwrap();
    assert_eq!(released, 1);
    assert_eq!(shop.process.effects.send_due().await.unwrap(), 1);
    assert_eq!(shop.phase(order).await.as_deref(), Some("completed"));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_at_once_do_everything_once() {
    let shop = Shop::open().await;
    let other = shop.another_process().await;
    let item = Uuid::now_v7();
    let orders: Vec<Uuid> = (0..40).map(|_| Uuid::now_v7()).collect();
    shop.fill(item, 30).await;
    for order in &orders {
        shop.place(*order, item, 1).await;
    }
    let mut events = Vec::new();
    for order in &orders {
        events.extend(shop.events(*order).await);
    }
    // Thirty get what they want, ten are refused; nobody pays.
    let events = &events;
    let deliveries = [&shop.process, &other].map(|process| async move {
        for piece in events.chunks(7) {
            process.gate.deliver(piece, DeliverySource::Bus).await.unwrap();
        }
    });
    futures::future::join_all(deliveries).await;
    assert_eq!(shop.stock(item).await.available, 0);
    shop.others.set(Mood::Away);
    shop.pass(PAYMENT_MILLIS);
    let rounds = [&shop.process, &other, &shop.process, &other].map(|process| process.timers.fire_due());
    let fired: usize = futures::future::try_join_all(rounds).await.unwrap().into_iter().sum();
    // A worker passes over what another one has locked, and one round is not enough for it.
    let rest = shop.process.timers.fire_due().await.unwrap();
    assert_eq!(fired + rest, 30);
    shop.others.set(Mood::Willing);
    let mut answered = 0;
    while answered < 60 {
        let rounds = [&shop.process, &other].map(|process| process.effects.send_due());
        answered += futures::future::try_join_all(rounds).await.unwrap().into_iter().sum::<usize>();
        shop.pass(60_000);
    }
    let stock = shop.stock(item).await;
    assert_eq!((stock.available, stock.reserved.len()), (30, 0));
    let done = shop.others.done();
    for order in &orders {
        let of_order = |effect: &&Effect| match effect {
            Effect::Charge { order: of, .. } | Effect::Refund { order: of } | Effect::Ship { order: of } => of == order,
        };
        let sent: Vec<_> = done.iter().filter(of_order).cloned().collect();
        let all = [Effect::Charge { order: *order, cents: 500 }, Effect::Refund { order: *order }];
        assert!(sent.is_empty() || sent == all, "{sent:?}");
        assert_eq!(shop.names(*order).await, ["OrderPlaced", "OrderRejected"]);
        assert_eq!(shop.phase(*order).await.as_deref(), Some("completed"));
    }
    assert_eq!(done.len(), 60);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_run_by_themselves_and_stop_when_told() {
    let shop = Shop::open().await;
    let (order, item) = (Uuid::now_v7(), Uuid::now_v7());
    shop.fill(item, 3).await;
    shop.place(order, item, 3).await;
    let other = shop.another_process().await;
    let stop = CancellationToken::new();
    let workers = [tokio::spawn(other.timers.run(stop.clone())), tokio::spawn(other.effects.run(stop.clone()))];
    shop.deliver(order).await;
    while shop.phase(order).await.as_deref() != Some("completed") {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    for worker in workers {
        worker.await.unwrap();
    }
    assert_eq!(shop.names(order).await, ["OrderPlaced", "OrderConfirmed"]);
    shop.close().await;
}

/// What happens next, to one of the orders where it is about one.
#[derive(Debug, Clone)]
enum Op {
    Place {
        order: usize,
        quantity: i64,
    },
    Withdraw {
        order: usize,
    },
    Deliver {
        order: usize,
        way: DeliverySource,
    },
    /// Time passes and timers are looked at.
    FireTimers {
        millis: i64,
    },
    /// The outbox is emptied once by others in this mood.
    SendEffects {
        mood: Mood,
    },
}

const ORDERS: usize = 3;

fn op() -> impl Strategy<Value = Op> {
    let order = 0..ORDERS;
    let way = prop_oneof![Just(DeliverySource::FastPath), Just(DeliverySource::Bus), Just(DeliverySource::Replay)];
    let mood = prop_oneof![3 => Just(Mood::Willing), 1 => Just(Mood::Refusing), 1 => Just(Mood::Away)];
    prop_oneof![
        2 => (order.clone(), 1..5_i64).prop_map(|(order, quantity)| Op::Place { order, quantity }),
        1 => order.clone().prop_map(|order| Op::Withdraw { order }),
        4 => (order, way).prop_map(|(order, way)| Op::Deliver { order, way }),
        1 => (0..2 * PAYMENT_MILLIS).prop_map(|millis| Op::FireTimers { millis }),
        3 => mood.prop_map(|mood| Op::SendEffects { mood }),
    ]
}

/// The same in memory, one thing after the other and nothing ever killed.
struct Model {
    stock: Arc<Mutex<Stock>>,
    orders: Vec<Modelled>,
    now: i64,
}

struct Modelled {
    id: Uuid,
    state: OrderState,
    delivered: usize,
    saga: Option<GivenSaga<Fulfilment>>,
    done: Vec<Effect>,
}

impl Model {
    fn new(ids: &[Uuid], stock: i64) -> Self {
        let stock = Arc::new(Mutex::new(Stock { available: stock, ..Stock::default() }));
        let orders = ids.iter().map(|id| {
            let state = Arc::new(Mutex::new((Order::default(), Vec::new())));
            let saga = given_saga(Fulfilment).with_aggregates(aggregates(Arc::clone(&stock), Arc::clone(&state)));
            Modelled { id: *id, state, delivered: 0, saga: Some(saga), done: Vec::new() }
        });
        Self { orders: orders.collect(), stock, now: START }
    }

    fn command(&self, order: usize, command: &OrderCommand) {
        let _ = decide_order(&self.orders[order].state, command, self.now);
    }

    fn deliver(&mut self, order: usize) {
        let modelled = &mut self.orders[order];
        let known = modelled.state.lock().unwrap().1.clone();
        for (event, at) in &known[modelled.delivered..] {
            let saga = modelled.saga.take().unwrap().at(Timestamp::from_millis(*at));
            modelled.saga = Some(saga.when((modelled.id, event.clone())).then_anything());
        }
        modelled.delivered = known.len();
    }

    fn fire_timers(&mut self, now: i64) {
        self.now = now;
        for modelled in &mut self.orders {
            let saga = modelled.saga.take().unwrap();
            let due = saga.timers().iter().find(|(_, at)| at.as_millis() <= now).map(|(timer, _)| timer.clone());
            modelled.saga = Some(match due {
                Some(timer) => saga.when_timed_out(timer).then_anything(),
                None => saga,
            });
        }
    }

    /// The first effect of each order.
    fn send_effects(&mut self, mood: Mood) {
        for modelled in &mut self.orders {
            let saga = modelled.saga.take().unwrap();
            let first = saga.outbox().next().cloned();
            modelled.saga = Some(match (first, mood) {
                (Some(effect), Mood::Willing) => {
                    modelled.done.push(effect);
                    saga.when_delivered(1).then_anything()
                }
                // An undo that is refused is parked, which is tried elsewhere.
                (Some(effect), Mood::Refusing) if !matches!(effect, Effect::Refund { .. }) => {
                    saga.when_undeliverable("no").then_anything()
                }
                _ => saga,
            });
        }
    }
}

type OrderState = Arc<Mutex<(Order, Vec<(OrderEvent, i64)>)>>;

fn decide_order(state: &OrderState, command: &OrderCommand, now: i64) -> Result<(), Refusal> {
    let mut state = state.lock().unwrap();
    for event in state.0.decide(command).map_err(Refusal::Order)? {
        state.0.evolve(&event);
        state.1.push((event, now));
    }
    Ok(())
}

fn aggregates(stock: Arc<Mutex<Stock>>, order: OrderState) -> impl FnMut(&Command) -> Result<(), Refusal> + Send {
    move |command| match command {
        Command::Order(_, command) => decide_order(&order, command, START),
        Command::Stock(_, command) => {
            let mut stock = stock.lock().unwrap();
            for event in stock.decide(command).map_err(Refusal::Stock)? {
                stock.evolve(&event);
            }
            Ok(())
        }
    }
}

/// Does one thing until it is done, killing it first after as many steps as `kills` says, each time in another process.
async fn survive<T>(kills: &[u32], processes: &[&Process], mut work: impl AsyncFnMut(&Process) -> T) -> T {
    for (polls, process) in kills.iter().zip(processes.iter().cycle()) {
        if let Some(result) = killed(*polls, work(process)).await {
            return result;
        }
    }
    work(processes[0]).await
}

async fn apply(shop: &Shop, processes: &[&Process], model: &mut Model, op: &Op, kills: &[u32]) {
    match op {
        Op::Place { order, quantity } => {
            let id = model.orders[*order].id;
            let placed = OrderPlaced { item: ITEM, quantity: *quantity, cents: 500 };
            let command = OrderCommand::Place(placed);
            let _ = shop.process.orders.execute(id, &command, &CommandContext::at(shop.clock.now())).await;
            model.command(*order, &command);
        }
        Op::Withdraw { order } => {
            let context = CommandContext::at(shop.clock.now());
            let _ = shop.process.orders.execute(model.orders[*order].id, &OrderCommand::Withdraw, &context).await;
            model.command(*order, &OrderCommand::Withdraw);
        }
        Op::Deliver { order, way } => {
            let events = shop.events(model.orders[*order].id).await;
            survive(kills, processes, async |process: &Process| process.gate.deliver(&events, *way).await.unwrap())
                .await;
            model.deliver(*order);
        }
        Op::FireTimers { millis } => {
            shop.pass(*millis);
            survive(kills, processes, async |process: &Process| process.timers.fire_due().await.unwrap()).await;
            // A killed transaction may still hold its locks for a moment.
            settle(shop, "select count(*) from saga_timers where try_at <= $1", async || {
                shop.process.timers.fire_due().await.unwrap();
            })
            .await;
            model.fire_timers(shop.clock.now().as_millis());
        }
        Op::SendEffects { mood } => send(shop, processes, model, *mood, kills).await,
    }
}

async fn settle(shop: &Shop, query: &'static str, mut again: impl AsyncFnMut()) {
    loop {
        let query = sqlx::query_scalar::<_, i64>(query).bind(shop.clock.now().as_millis());
        if query.fetch_one(shop.process.store.pool()).await.unwrap() == 0 {
            return;
        }
        again().await;
    }
}

/// One effect of each order, as the model does.
async fn send(shop: &Shop, processes: &[&Process], model: &mut Model, mood: Mood, kills: &[u32]) {
    let pool = shop.process.store.pool();
    let first = "select count(*) from (select distinct instance from saga_effects) i";
    // Refusing a refund parks it, which this test leaves to others.
    let refunds: i64 = sqlx::query_scalar("select count(*) from saga_effects where effect like '%Refund%'")
        .fetch_one(pool)
        .await
        .unwrap();
    if mood == Mood::Refusing && refunds > 0 {
        return;
    }
    shop.others.set(mood);
    let heads: Vec<Uuid> = sqlx::query_scalar(
        "select e.id from saga_effects e where e.number = \
         (select min(b.number) from saga_effects b where b.instance = e.instance)",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let instances: i64 = sqlx::query_scalar(first).fetch_one(pool).await.unwrap();
    assert_eq!(heads.len() as i64, instances);
    if mood != Mood::Away {
        // Held back, so that each order's next effect waits for the next round.
        sqlx::query("update saga_effects set parked_at = 1 where id <> all($1)")
            .bind(&heads)
            .execute(pool)
            .await
            .unwrap();
    }
    let remaining = "select count(*) from saga_effects where id = any($1)";
    if mood == Mood::Away {
        survive(kills, processes, async |process: &Process| process.effects.send_due().await.unwrap()).await;
    } else {
        let mut kills = kills;
        loop {
            let left: i64 = sqlx::query_scalar(remaining).bind(&heads).fetch_one(pool).await.unwrap();
            if left == 0 {
                break;
            }
            // Loans of the killed run out, and waits are over.
            sqlx::query("update saga_effects set try_at = 0 where id = any($1)")
                .bind(&heads)
                .execute(pool)
                .await
                .unwrap();
            sqlx::query("update saga_effects set try_at = 9e15 where id <> all($1)")
                .bind(&heads)
                .execute(pool)
                .await
                .unwrap();
            let (now, later) = kills.split_at(kills.len().min(1));
            kills = later;
            match now {
                [polls] => drop(killed(*polls, processes[kills.len() % processes.len()].effects.send_due()).await),
                _ => drop(shop.process.effects.send_due().await.unwrap()),
            }
        }
    }
    sqlx::query("update saga_effects set parked_at = null, try_at = 0").execute(pool).await.unwrap();
    model.send_effects(mood);
}

const ITEM: Uuid = Uuid::from_u128(77);

#[test]
fn whatever_is_killed_and_however_it_comes_the_result_is_that_of_a_sequential_run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    let step = (op(), prop::collection::vec(0..60_u32, 0..3));
    let strategy = (prop::collection::vec(step, 1..25), 3..9_i64);
    let mut runner = TestRunner::new(ProptestConfig { cases: 24, max_shrink_iters: 40, ..ProptestConfig::default() });
    let result = runner.run(&strategy, |(steps, stock)| {
        runtime.block_on(async {
            let shop = Shop::open().await;
            let other = shop.another_process().await;
            let processes = [&shop.process, &other];
            let ids: Vec<Uuid> = (0..ORDERS).map(|_| Uuid::now_v7()).collect();
            shop.fill(ITEM, stock).await;
            let mut model = Model::new(&ids, stock);
            for (op, kills) in &steps {
                apply(&shop, &processes, &mut model, op, kills).await;
            }
            let done: HashMap<Uuid, Vec<Effect>> = ids.iter().map(|id| (*id, effects_of(&shop, *id))).collect();
            let expected = model.stock.lock().unwrap().clone();
            let actual = shop.stock(ITEM).await;
            prop_assert_eq!(&actual, &expected);
            for modelled in &model.orders {
                let names: Vec<String> = {
                    let state = modelled.state.lock().unwrap();
                    state.1.iter().map(|(event, _)| epoch::DomainEvent::name(event).to_owned()).collect()
                };
                prop_assert_eq!(shop.names(modelled.id).await, names);
                prop_assert_eq!(&done[&modelled.id], &modelled.done);
                let saga = modelled.saga.as_ref().unwrap();
                if let Some(status) = shop.status(modelled.id).await {
                    let phase = format!("{:?}", saga.phase()).to_lowercase();
                    prop_assert_eq!(status.phase, phase);
                    prop_assert_eq!(status.timers, saga.timers().len() as i64);
                    prop_assert_eq!(status.effects, saga.outbox().count() as i64);
                } else {
                    prop_assert_eq!(modelled.delivered, 0);
                }
            }
            shop.close().await;
            Ok(())
        })
    });
    result.unwrap();
}

fn effects_of(shop: &Shop, order: Uuid) -> Vec<Effect> {
    let mut done = shop.others.done();
    done.retain(|effect| match effect {
        Effect::Charge { order: of, .. } | Effect::Refund { order: of } | Effect::Ship { order: of } => *of == order,
    });
    done
}
