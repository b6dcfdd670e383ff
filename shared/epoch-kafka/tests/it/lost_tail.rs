//! Recovery from a broker that loses the acknowledged end of a topic, as in a machine crash before the records are on disk.

use std::{fs, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use epoch::{Aggregate, Batch, CommandContext, FastPath, Position, Repository, handler::EventHandler};
use epoch_kafka::{KafkaBus, KafkaConfig};
use epoch_postgres::{
    HandlerError, PgStore, PgSubscription, PgTx, Progress, Relay, testkit::TestDatabase, version_number,
};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    broker::PrivateBroker,
    lost_tail::bank::{Account, AccountCommand},
    support::*,
};

#[path = "../../../epoch/examples/bank.rs"]
#[allow(dead_code, reason = "only its aggregate is used")]
mod bank;

const TABLE: &str = "create table applied_events (number bigint generated always as identity, subscription text not null, \
     id uuid not null, version bigint not null)";
const APPLIED: &str = "select version from applied_events where subscription = $1 and id = $2 order by number";
const GAPS: &str = "select count(*) from cursors where subscription = $1 and parked = 'gap' and version = $2";
const PARKED: &str = "select count(*) from cursors where parked is not null";

/// A handler that records each applied event.
struct Recorder(&'static str);

#[async_trait]
impl EventHandler<PgTx> for Recorder {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        self.0
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &[Account::NAME]
    }

    async fn handle(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        for event in events {
            sqlx::query("insert into applied_events (subscription, id, version) values ($1, $2, $3)")
                .bind(self.0)
                .bind(event.aggregate_id)
                .bind(version_number(event.version))
                .execute(tx.connection())
                .await?;
        }
        Ok(())
    }
}

/// A service with a store, a relay and a bus.
struct Service {
    store: PgStore,
    accounts: Repository<Account, PgStore>,
    progress: Progress,
    bus: Arc<KafkaBus>,
}

impl Service {
    fn new(pool: &PgPool, bus: KafkaBus) -> Self {
        let (store, appender) = PgStore::new(pool.clone(), FastPath::new());
        tokio::spawn(appender.run());
        let accounts = Repository::new(store.clone());
        Self { store, accounts, progress: Progress::new(pool.clone()), bus: Arc::new(bus) }
    }

    fn relay(&self) -> Relay {
        Relay::new(self.store.clone(), self.bus.clone(), "kafka")
    }

    /// Deposits into each account `rounds` times, in turn, with one event per deposit.
    async fn deposit(&self, ids: &[Uuid], rounds: usize) {
        for id in ids.iter().cycle().take(ids.len() * rounds) {
            self.accounts.execute(*id, &AccountCommand::Deposit(1), &CommandContext::new()).await.unwrap();
        }
    }

    async fn wait_until_published(&self) {
        let relay = self.relay();
        eventually("everything is published", async || {
            let status = relay.status().await.unwrap();
            status.fence > 0 && status.published == status.head
        })
        .await;
    }

    fn consume(&self, name: &'static str) -> ConsumerTask {
        let gate = PgSubscription::new(Arc::new(Recorder(name)), self.store.clone(), self.progress.clone());
        ConsumerTask::start(&self.bus, Arc::new(gate))
    }

    async fn applied(&self, name: &str, id: Uuid) -> Vec<i64> {
        sqlx::query_scalar(APPLIED).bind(name).bind(id).fetch_all(self.store.pool()).await.unwrap()
    }

    /// Waits until a subscription has applied the versions 1 to `versions` of each account, once and in order.
    async fn wait_until_applied(&self, name: &str, ids: &[Uuid], versions: i64) {
        for id in ids {
            eventually(&format!("{name} has applied {versions} events"), async || {
                self.applied(name, *id).await == (1..=versions).collect::<Vec<_>>()
            })
            .await;
        }
    }

    async fn count(&self, query: &'static str, name: &str, version: i64) -> i64 {
        let query = sqlx::query_scalar(query).bind(name).bind(version);
        query.fetch_one(self.store.pool()).await.unwrap()
    }
}

async fn eventually(description: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = std::time::Instant::now();
    while !condition().await {
        assert!(start.elapsed() < LIMIT, "timed out: {description}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Truncates a partition at this offset, which must be the start of a batch. Deletes the index files, which the broker rebuilds.
fn truncate(partition: &Path, offset: u64) {
    for file in fs::read_dir(partition).unwrap() {
        let file = file.unwrap().path();
        let kind = file.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
        if ["index", "timeindex", "snapshot"].contains(&kind) {
            fs::remove_file(file).unwrap();
        }
    }
    let segment = partition.join(format!("{:020}.log", 0));
    let records = fs::read(&segment).unwrap();
    // A batch consists of its first offset (8 bytes), the length of the remainder (4 bytes) and the remainder.
    let mut start = 0;
    while u64::from_be_bytes(records[start..start + 8].try_into().unwrap()) < offset {
        let length = u32::from_be_bytes(records[start + 8..start + 12].try_into().unwrap());
        start += 12 + usize::try_from(length).unwrap();
    }
    assert_eq!(records[start..start + 8], offset.to_be_bytes(), "a batch starts at the offset");
    fs::OpenOptions::new().write(true).open(segment).unwrap().set_len(start as u64).unwrap();
}

fn lost_tails(name: &str) -> Option<f64> {
    metric("epoch_bus_lost_tails_total", &[("subscription", name)])
}

#[tokio::test(flavor = "multi_thread")]
async fn relay_rewind_restores_a_lost_topic_end() {
    let (broker, servers) = tokio::task::spawn_blocking(PrivateBroker::start).await.unwrap();
    let Some(data) = broker.data_directory() else {
        eprintln!("skipped: no private Kafka whose records could be deleted");
        return;
    };
    let broker = Arc::new(broker);
    let database = TestDatabase::create().await;
    let pool = database.epoch().await;
    sqlx::raw_sql(TABLE).execute(&pool).await.unwrap();
    let mut config = KafkaConfig { partitions: 1, delivery_timeout: Duration::from_secs(2), ..private(servers) };
    // The running consumer keeps its partition during the outage: a new assignment would start at the committed offset.
    config.settings.insert("session.timeout.ms".to_owned(), "60000".to_owned());
    let partition = data.join(format!("{}-0", topic(&config, Account::NAME)));
    let service = Service::new(&pool, KafkaBus::connect(config).unwrap());
    let stop = CancellationToken::new();
    let relay = tokio::spawn(service.relay().run(stop.clone()));
    let (ids, silent) = (ids(3), Uuid::now_v7());

    // `stays` runs all the time. `returns` and `leaves` stop after all events and come back soon and late. `late` stops earlier.
    let stays = service.consume("stays");
    let (returns, leaves, late) = (service.consume("returns"), service.consume("leaves"), service.consume("late"));
    service.deposit(&ids, 10).await;
    service.wait_until_applied("late", &ids, 10).await;
    late.stop().await.unwrap();
    service.deposit(&ids, 5).await;
    service.wait_until_published().await;
    service.deposit(&ids, 5).await;
    for name in ["stays", "returns", "leaves"] {
        service.wait_until_applied(name, &ids, 20).await;
    }
    returns.stop().await.unwrap();
    leaves.stop().await.unwrap();

    // 45 of 60 records remain.
    let crashed = Arc::clone(&broker);
    tokio::task::spawn_blocking(move || {
        crashed.kill();
        truncate(&partition, 45);
        crashed.restart();
    })
    .await
    .unwrap();

    // Commands still succeed. A consumer that finds the topic truncated counts it, restarts at the beginning, and misses nothing.
    service.deposit(&ids, 1).await;
    let returns = service.consume("returns");
    for name in ["stays", "returns"] {
        service.wait_until_applied(name, &ids, 21).await;
        eventually(&format!("{name} counts a lost topic end"), async || lost_tails(name) >= Some(1.0)).await;
    }
    // The same holds for a consumer that is stopped while the topic grows past the former end.
    stays.stop().await.unwrap();
    service.deposit(&[silent], 1).await;
    service.deposit(&ids, 9).await;
    service.wait_until_published().await;
    let stays = service.consume("stays");
    for name in ["stays", "returns"] {
        service.wait_until_applied(name, &ids, 30).await;
        service.wait_until_applied(name, &[silent], 1).await;
    }

    // The other two miss events: the lost ones, or new ones at offsets that they had already consumed.
    let (leaves, late) = (service.consume("leaves"), service.consume("late"));
    eventually("gaps park the accounts", async || {
        (service.count(GAPS, "leaves", 20).await, service.count(GAPS, "late", 15).await) == (3, 3)
    })
    .await;
    assert_eq!(service.applied("leaves", silent).await, [] as [i64; 0], "no later event reveals the gap");
    let lag = service.progress.lag("leaves", &[Account::NAME]).await.unwrap();
    assert_eq!((lag.events, lag.parked), (1, 3), "the lag reveals it");

    assert_eq!(service.relay().rewind(Position::new(45)).await.unwrap(), Position::new(45));
    for name in ["stays", "returns", "leaves", "late"] {
        service.wait_until_applied(name, &ids, 30).await;
        service.wait_until_applied(name, &[silent], 1).await;
        let lag = || service.progress.lag(name, &[Account::NAME]);
        eventually("the lag is 0", async || lag().await.unwrap().events == 0).await;
    }
    eventually("no account is parked", async || {
        sqlx::query_scalar::<_, i64>(PARKED).fetch_one(&pool).await.unwrap() == 0
    })
    .await;
    // The result is unchanged after all events were published again.
    service.wait_until_published().await;
    for name in ["stays", "returns", "leaves", "late"] {
        service.wait_until_applied(name, &ids, 30).await;
    }

    for consuming in [stays, returns, leaves, late] {
        consuming.stop().await.unwrap();
    }
    stop.cancel();
    relay.await.unwrap();
    database.drop().await;
}
