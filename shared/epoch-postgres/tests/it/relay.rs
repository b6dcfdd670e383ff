//! The relay: at least once, in version order, through failures of the bus and of its leader; and the bus in Postgres.

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
    Batch,
    bus::{Bus, ConsumeError, PublishError},
    envelope::StreamKey,
    handler::Subscription,
};
use epoch_postgres::{PgBus, Relay};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::account::Bank;

/// Takes a part of every third batch only, and says so.
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
        // More arrive than are acknowledged, as when a report is lost.
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

async fn published(bank: &Bank, bus: Arc<dyn Bus>) {
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
async fn everything_arrives_in_version_order_though_bus_and_leader_fail() {
    let bank = Bank::open().await;
    let (bus, ids) = (ShakyBus::new(), [Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7()]);
    let mut leaders = tokio::task::JoinSet::new();
    for round in 0..60 {
        bank.deposit(ids[round % 3], 1).await;
        if round % 20 == 0 {
            // A leader dies in the middle, another takes over.
            leaders.abort_all();
            let stop = CancellationToken::new();
            leaders.spawn(Relay::new(bank.store.clone(), bus.clone(), "test").run(stop));
        }
    }
    published(&bank, bus.clone()).await;
    let mut firsts: HashMap<Uuid, u64> = HashMap::new();
    for (id, version) in bus.taken.lock().unwrap().iter() {
        let last = firsts.entry(*id).or_default();
        assert!(*version <= *last + 1, "{version} came before {}", *last + 1);
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
    published(&bank, bus.clone()).await;
    let status = Relay::new(bank.store.clone(), bus.clone(), "test").status().await.unwrap();
    assert_eq!(status.fence, 1, "the second has never led");
    stop.cancel();
    for relay in relays {
        relay.await.unwrap();
    }
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_postgres_bus_brings_events_to_a_subscription() {
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
