//! The relay: at least once and in version order, with failing buses and leaders; and the bus in Postgres.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use epoch::{
    Batch, Position,
    bus::{Bus, ConsumeError, PublishError},
    envelope::StreamKey,
    handler::Subscription,
};
use epoch_postgres::{Lag, PgBus, Relay};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::account::Bank;

/// Accepts only a part of every third batch, and reports an error.
struct ShakyBus {
    taken: Mutex<Vec<(Uuid, u64)>>,
    count: watch::Sender<usize>,
    calls: AtomicU32,
}

impl ShakyBus {
    fn new() -> Arc<Self> {
        Arc::new(Self { taken: Mutex::default(), count: watch::channel(0).0, calls: AtomicU32::new(0) })
    }
}

#[async_trait]
impl Bus for ShakyBus {
    async fn publish(&self, events: &Batch) -> Result<(), PublishError> {
        let shaky = self.calls.fetch_add(1, Ordering::SeqCst).is_multiple_of(3);
        // More events arrive than are acknowledged, as after a lost delivery report.
        let (arrived, acknowledged) =
            if shaky { (events.len() / 2, events.len() / 3) } else { (events.len(), events.len()) };
        let mut taken = self.taken.lock().unwrap();
        taken.extend(events[..arrived].iter().map(|event| (event.aggregate_id, event.version.get())));
        self.count.send_replace(taken.len());
        if acknowledged == events.len() {
            return Ok(());
        }
        Err(PublishError { acknowledged, offered: events.len(), detail: "shaky".into() })
    }

    async fn consume(&self, _: Arc<dyn Subscription>, _: CancellationToken) -> Result<(), ConsumeError> {
        Ok(())
    }
}

/// Delivers the events on the bus to the subscription of the bank, until `stop`.
fn spawn_consumer(bank: &Bank, bus: &Arc<PgBus>, stop: &CancellationToken) -> JoinHandle<Result<(), ConsumeError>> {
    let (bus, gate, stop) = (bus.clone(), Arc::new(bank.subscription()), stop.clone());
    tokio::spawn(async move { bus.consume(gate, stop).await })
}

async fn wait_until_published(bank: &Bank, bus: Arc<dyn Bus>) {
    let relay = Relay::new(bank.store.clone(), bus, "test");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let status = relay.status().await.unwrap();
        if status.fence > 0 && status.published == status.head {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "still {status:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_bus_and_leaders_keep_version_order() {
    let bank = Bank::open().await;
    let (bus, ids) = (ShakyBus::new(), [Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7()]);
    let mut leaders = tokio::task::JoinSet::new();
    for round in 0..60 {
        bank.deposit(ids[round % 3], 1).await;
        if round % 20 == 0 {
            // The leader is killed, and another takes over.
            leaders.abort_all();
            let stop = CancellationToken::new();
            leaders.spawn(Relay::new(bank.store.clone(), bus.clone(), "test").run(stop));
        }
    }
    wait_until_published(&bank, bus.clone()).await;
    let mut firsts: HashMap<Uuid, u64> = HashMap::new();
    for (id, version) in bus.taken.lock().unwrap().iter() {
        let last = firsts.entry(*id).or_default();
        assert!(*version <= *last + 1, "version {version} was published before {}", *last + 1);
        *last = (*last).max(*version);
    }
    assert_eq!(firsts, ids.iter().map(|id| (*id, 20)).collect());
    leaders.shutdown().await;
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_of_two_relays_leads() {
    let bank = Bank::open().await;
    let stop = CancellationToken::new();
    let bus = ShakyBus::new();
    let relays: Vec<_> =
        (0..2).map(|_| tokio::spawn(Relay::new(bank.store.clone(), bus.clone(), "test").run(stop.clone()))).collect();
    bank.deposit(Uuid::now_v7(), 1).await;
    wait_until_published(&bank, bus.clone()).await;
    let status = Relay::new(bank.store.clone(), bus.clone(), "test").status().await.unwrap();
    assert_eq!(status.fence, 1, "the second relay never led");
    stop.cancel();
    for relay in relays {
        relay.await.unwrap();
    }
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pg_bus_delivers_to_a_subscription() {
    let bank = Bank::open().await;
    let stop = CancellationToken::new();
    let bus = Arc::new(PgBus::connect(bank.store.pool().clone(), "catacloud", "test").await.unwrap());
    let relay = tokio::spawn(Relay::new(bank.store.clone(), bus.clone(), "test").run(stop.clone()));
    let consumers: Vec<_> = (0..2)
        .map(|_| {
            let (bus, gate, stop) = (bus.clone(), Arc::new(bank.subscription()), stop.clone());
            tokio::spawn(async move { bus.consume(gate, stop).await })
        })
        .collect();
    let id = Uuid::now_v7();
    for _ in 0..50 {
        bank.deposit(id, 1).await;
    }
    let stream = StreamKey { aggregate: "account".into(), id };
    bank.progress.wait_for("balances", &stream, epoch::Version::new(50), Duration::from_secs(20)).await.unwrap();
    assert_eq!(bank.projected().await, bank.folded().await);
    assert_eq!(bank.seen(id).await, (1..=50).collect::<Vec<_>>());
    stop.cancel();
    relay.await.unwrap();
    for consumer in consumers {
        consumer.await.unwrap().unwrap();
    }
    bank.close().await;
}

/// A bus that blocks while paused.
struct PausedBus {
    taken: Mutex<Vec<u64>>,
    entered: watch::Sender<u32>,
    resumed: watch::Sender<bool>,
}

#[async_trait]
impl Bus for PausedBus {
    async fn publish(&self, events: &Batch) -> Result<(), PublishError> {
        self.entered.send_modify(|entered| *entered += 1);
        self.resumed.subscribe().wait_for(|resumed| *resumed).await.unwrap();
        self.taken.lock().unwrap().extend(events.iter().map(|event| event.position.get()));
        Ok(())
    }

    async fn consume(&self, _: Arc<dyn Subscription>, _: CancellationToken) -> Result<(), ConsumeError> {
        Ok(())
    }
}

async fn eventually<F: Future<Output = bool>>(condition_name: &str, mut condition: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "timed out: {condition_name}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_leader_cannot_advance_the_cursor() {
    let bank = Bank::open().await;
    let paused =
        Arc::new(PausedBus { taken: Mutex::default(), entered: watch::channel(0).0, resumed: watch::channel(false).0 });
    let stop = CancellationToken::new();
    for _ in 0..3 {
        bank.deposit(Uuid::now_v7(), 1).await;
    }
    let old = tokio::spawn(Relay::new(bank.store.clone(), paused.clone(), "test").run(stop.clone()));
    paused.entered.subscribe().wait_for(|entered| *entered == 1).await.unwrap();
    // The leader blocks while it publishes. Killing its connection ends its leadership.
    let kill = "select count(pg_terminate_backend(pid)) from pg_locks where locktype = 'advisory' and granted \
         and classid = 1162891076 and database = (select oid from pg_database where datname = current_database())";
    let killed: i64 = sqlx::query_scalar(kill).fetch_one(bank.store.pool()).await.unwrap();
    assert_eq!(killed, 1);
    let bus = ShakyBus::new();
    let new = tokio::spawn(Relay::new(bank.store.clone(), bus.clone(), "test").run(stop.clone()));
    wait_until_published(&bank, bus.clone()).await;
    for _ in 0..3 {
        bank.deposit(Uuid::now_v7(), 1).await;
    }
    wait_until_published(&bank, bus.clone()).await;
    let relay = Relay::new(bank.store.clone(), bus.clone(), "test");
    let before = relay.status().await.unwrap();
    assert_eq!((before.fence, before.published.get()), (2, 6));
    paused.resumed.send_replace(true);
    eventually("the former leader publishes its batch", async || paused.taken.lock().unwrap().len() == 3).await;
    // The former leader resigns and becomes a candidate; it must not have moved the cursor.
    bank.deposit(Uuid::now_v7(), 1).await;
    wait_until_published(&bank, bus.clone()).await;
    let after = relay.status().await.unwrap();
    assert_eq!((after.fence, after.published.get()), (2, 7));
    stop.cancel();
    old.await.unwrap();
    new.await.unwrap();
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_leader_cannot_undo_a_rewind() {
    let bank = Bank::open().await;
    let bus =
        Arc::new(PausedBus { taken: Mutex::default(), entered: watch::channel(0).0, resumed: watch::channel(true).0 });
    let stop = CancellationToken::new();
    for _ in 0..4 {
        bank.deposit(Uuid::now_v7(), 1).await;
    }
    let leader = tokio::spawn(Relay::new(bank.store.clone(), bus.clone(), "test").run(stop.clone()));
    wait_until_published(&bank, bus.clone()).await;
    bus.resumed.send_replace(false);
    bank.deposit(Uuid::now_v7(), 1).await;
    bus.entered.subscribe().wait_for(|entered| *entered >= 2).await.unwrap();
    let relay = Relay::new(bank.store.clone(), bus.clone(), "test");
    assert_eq!(relay.rewind(Position::new(2)).await.unwrap().get(), 2);
    bus.resumed.send_replace(true);
    wait_until_published(&bank, bus.clone()).await;
    let taken = bus.taken.lock().unwrap().clone();
    assert!(taken.ends_with(&[3, 4, 5]), "events after position 2 are published again: {taken:?}");
    assert_eq!(relay.rewind(Position::new(100)).await.unwrap().get(), 5, "a rewind never moves forward");
    stop.cancel();
    leader.await.unwrap();
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_leader_detects_rewind_and_republishes() {
    let bank = Bank::open().await;
    let stop = CancellationToken::new();
    let bus = Arc::new(PgBus::connect(bank.store.pool().clone(), "catacloud", "test").await.unwrap());
    let leader = tokio::spawn(Relay::new(bank.store.clone(), bus.clone(), "test").run(stop.clone()));
    let consumer = spawn_consumer(&bank, &bus, &stop);
    let id = Uuid::now_v7();
    for _ in 0..20 {
        bank.deposit(id, 1).await;
    }
    wait_until_published(&bank, bus.clone()).await;
    // The bus loses its last messages.
    sqlx::query("delete from epoch_bus.messages where number > 5").execute(bank.store.pool()).await.unwrap();
    let relay = Relay::new(bank.store.clone(), bus.clone(), "test");
    assert_eq!(relay.rewind(Position::new(5)).await.unwrap().get(), 5);
    eventually("the messages are on the bus again", async || {
        let count = "select count(*) from epoch_bus.messages";
        sqlx::query_scalar::<_, i64>(count).fetch_one(bank.store.pool()).await.unwrap() == 20
    })
    .await;
    let stream = StreamKey { aggregate: "account".into(), id };
    bank.deposit(id, 1).await;
    bank.progress.wait_for("balances", &stream, epoch::Version::new(21), Duration::from_secs(20)).await.unwrap();
    assert_eq!(bank.seen(id).await, (1..=21).collect::<Vec<_>>());
    stop.cancel();
    leader.await.unwrap();
    consumer.await.unwrap().unwrap();
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rewind_restores_unconsumed_lost_messages() {
    let bank = Bank::open().await;
    let stop = CancellationToken::new();
    let bus = Arc::new(PgBus::connect(bank.store.pool().clone(), "catacloud", "test").await.unwrap());
    let leader = tokio::spawn(Relay::new(bank.store.clone(), bus.clone(), "test").run(stop.clone()));
    let id = Uuid::now_v7();
    for _ in 0..20 {
        bank.deposit(id, 1).await;
    }
    wait_until_published(&bank, bus.clone()).await;
    // Acknowledged, and lost before a consumer has read them.
    sqlx::query("delete from epoch_bus.messages where number > 5").execute(bank.store.pool()).await.unwrap();
    bank.deposit(id, 1).await;
    wait_until_published(&bank, bus.clone()).await;
    let consumer = spawn_consumer(&bank, &bus, &stop);
    let stream = StreamKey { aggregate: "account".into(), id };
    let gap = "select count(*) from cursors where subscription = 'balances' and parked = 'gap' and version = 5";
    eventually("the aggregate is parked at the gap", async || {
        sqlx::query_scalar::<_, i64>(gap).fetch_one(bank.store.pool()).await.unwrap() == 1
    })
    .await;
    let relay = Relay::new(bank.store.clone(), bus.clone(), "test");
    relay.rewind(Position::new(5)).await.unwrap();
    bank.progress.wait_for("balances", &stream, epoch::Version::new(21), Duration::from_secs(20)).await.unwrap();
    assert_eq!(bank.seen(id).await, (1..=21).collect::<Vec<_>>(), "each event once and in order");
    eventually("no aggregate is parked", async || {
        sqlx::query_scalar::<_, i64>("select count(*) from cursors where parked is not null")
            .fetch_one(bank.store.pool())
            .await
            .unwrap()
            == 0
    })
    .await;
    stop.cancel();
    leader.await.unwrap();
    consumer.await.unwrap().unwrap();
    bank.close().await;
}

/// Returns the rows read by sequential scans, the rows fetched by index, and the index scans, of the log and the bus.
async fn reads(bank: &Bank) -> (i64, i64, i64) {
    let query = "select sum(seq_tup_read)::bigint, sum(idx_tup_fetch)::bigint, sum(idx_scan)::bigint \
         from pg_stat_user_tables where relname in ('events', 'messages')";
    sqlx::query_as(query).fetch_one(bank.store.pool()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_relay_and_consumer_read_no_rows() {
    const EVENTS: i64 = 2_000;
    let bank = Bank::open().await;
    let stop = CancellationToken::new();
    let bus = Arc::new(PgBus::connect(bank.store.pool().clone(), "catacloud", "test").await.unwrap());
    let id = Uuid::now_v7();
    for _ in 0..EVENTS / 100 {
        let notes = (0..100).map(|_| bank.note(id, "a"));
        futures::future::join_all(notes).await;
    }
    let leader = tokio::spawn(Relay::new(bank.store.clone(), bus.clone(), "test").run(stop.clone()));
    let consumer = spawn_consumer(&bank, &bus, &stop);
    let stream = StreamKey { aggregate: "account".into(), id };
    let all = epoch::Version::new(u64::try_from(EVENTS).unwrap());
    bank.progress.wait_for("balances", &stream, all, Duration::from_secs(60)).await.unwrap();
    wait_until_published(&bank, bus.clone()).await;
    assert_eq!(bank.progress.lag("balances", &["account"]).await.unwrap(), Lag { exact: true, ..Lag::default() });
    let lag = tokio::spawn({
        let (progress, stop) = (bank.progress.clone(), stop.clone());
        let often = Duration::from_millis(50);
        async move { progress.report_lag(vec![("balances", &["account"])], often, stop).await }
    });
    // Autovacuum does this later. Without statistics the planner may prefer sequential scans of these small tables.
    sqlx::raw_sql("analyze events; analyze epoch_bus.messages").execute(bank.store.pool()).await.unwrap();
    let (_, _, scans) = reads(&bank).await;
    eventually("100 index scans", async || reads(&bank).await.2 > scans + 100).await;
    let (scanned, fetched, scans) = reads(&bank).await;
    // The server publishes its statistics with a delay of some seconds, so these polls appear after the earlier reads.
    eventually("another 100 index scans", async || reads(&bank).await.2 > scans + 100).await;
    let (whole, after, _) = reads(&bank).await;
    assert!(whole - scanned < 3 * EVENTS, "a hundred polls scanned {} rows", whole - scanned);
    assert!(after - fetched < 3 * EVENTS, "a hundred polls read {} rows", after - fetched);
    stop.cancel();
    leader.await.unwrap();
    consumer.await.unwrap().unwrap();
    lag.await.unwrap();
    bank.close().await;
}
