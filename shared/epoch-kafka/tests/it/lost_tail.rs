//! A broker that loses the end of a topic after it has acknowledged it, as a crash of the machine does to what was in its memory.

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

const TABLE: &str = "create table seen (number bigint generated always as identity, subscription text not null, \
     id uuid not null, version bigint not null)";
const SEEN: &str = "select version from seen where subscription = $1 and id = $2 order by number";
const GAPS: &str = "select count(*) from cursors where subscription = $1 and parked = 'gap' and version = $2";
const PARKED: &str = "select count(*) from cursors where parked is not null";

/// Writes down every event that it applies.
struct Seen(&'static str);

#[async_trait]
impl EventHandler<PgTx> for Seen {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        self.0
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &[Account::NAME]
    }

    async fn handle(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        for event in events {
            sqlx::query("insert into seen (subscription, id, version) values ($1, $2, $3)")
                .bind(self.0)
                .bind(event.aggregate_id)
                .bind(version_number(event.version))
                .execute(tx.connection())
                .await?;
        }
        Ok(())
    }
}

/// A service with its relay to a broker.
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

    /// Each of these accounts gets so many events more, in turn.
    async fn deposit(&self, ids: &[Uuid], rounds: usize) {
        for id in ids.iter().cycle().take(ids.len() * rounds) {
            self.accounts.execute(*id, &AccountCommand::Deposit(1), &CommandContext::new()).await.unwrap();
        }
    }

    async fn published(&self) {
        let relay = self.relay();
        eventually("everything is published", async || {
            let status = relay.status().await.unwrap();
            status.fence > 0 && status.published == status.head
        })
        .await;
    }

    fn consume(&self, name: &'static str) -> ConsumerTask {
        let gate = PgSubscription::new(Arc::new(Seen(name)), self.store.clone(), self.progress.clone());
        ConsumerTask::start(&self.bus, Arc::new(gate))
    }

    async fn seen(&self, name: &str, id: Uuid) -> Vec<i64> {
        sqlx::query_scalar(SEEN).bind(name).bind(id).fetch_all(self.store.pool()).await.unwrap()
    }

    /// Waits until a subscription has applied so many events of each of these accounts: each once, in order.
    async fn caught_up(&self, name: &str, ids: &[Uuid], versions: i64) {
        for id in ids {
            eventually(&format!("{name} has {versions} events"), async || {
                self.seen(name, *id).await == (1..=versions).collect::<Vec<_>>()
            })
            .await;
        }
    }

    async fn count(&self, query: &'static str, name: &str, version: i64) -> i64 {
        let query = sqlx::query_scalar(query).bind(name).bind(version);
        query.fetch_one(self.store.pool()).await.unwrap()
    }
}

async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = std::time::Instant::now();
    while !condition().await {
        assert!(start.elapsed() < LIMIT, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Cuts a partition off before this offset, where a batch of records must begin; what the broker has noted about its files is made
/// anew by it.
fn cut(partition: &Path, offset: u64) {
    for file in fs::read_dir(partition).unwrap() {
        let file = file.unwrap().path();
        let kind = file.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
        if ["index", "timeindex", "snapshot"].contains(&kind) {
            fs::remove_file(file).unwrap();
        }
    }
    let segment = partition.join(format!("{:020}.log", 0));
    let records = fs::read(&segment).unwrap();
    // A batch: its first offset in 8 bytes, the length of the rest in 4, the rest.
    let mut begins = 0;
    while u64::from_be_bytes(records[begins..begins + 8].try_into().unwrap()) < offset {
        let length = u32::from_be_bytes(records[begins + 8..begins + 12].try_into().unwrap());
        begins += 12 + usize::try_from(length).unwrap();
    }
    assert_eq!(records[begins..begins + 8], offset.to_be_bytes(), "a batch begins there");
    fs::OpenOptions::new().write(true).open(segment).unwrap().set_len(begins as u64).unwrap();
}

fn lost_tails(name: &str) -> Option<f64> {
    metric("epoch_bus_lost_tails_total", &[("subscription", name)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_a_broker_has_lost_comes_back_by_a_rewind() {
    let (broker, servers) = tokio::task::spawn_blocking(PrivateBroker::start).await.unwrap();
    let Some(data) = broker.data() else {
        eprintln!("left out: there is no private Kafka whose records could be lost");
        return;
    };
    let broker = Arc::new(broker);
    let database = TestDatabase::create().await;
    let pool = database.epoch().await;
    sqlx::raw_sql(TABLE).execute(&pool).await.unwrap();
    let mut config = KafkaConfig { partitions: 1, delivery_timeout: Duration::from_secs(2), ..private(servers) };
    // Who stays keeps its partition while the broker is away: a new assignment would begin at what was committed.
    config.settings.insert("session.timeout.ms".to_owned(), "60000".to_owned());
    let partition = data.join(format!("{}-0", topic(&config, Account::NAME)));
    let service = Service::new(&pool, KafkaBus::connect(config).unwrap());
    let stop = CancellationToken::new();
    let relay = tokio::spawn(service.relay().run(stop.clone()));
    let (ids, silent) = (ids(3), Uuid::now_v7());

    // One stays; two are away after they have taken everything, for a short and a long time; one is away before it has.
    let stays = service.consume("stays");
    let (returns, leaves, late) = (service.consume("returns"), service.consume("leaves"), service.consume("late"));
    service.deposit(&ids, 10).await;
    service.caught_up("late", &ids, 10).await;
    late.stop().await.unwrap();
    service.deposit(&ids, 5).await;
    service.published().await;
    service.deposit(&ids, 5).await;
    for name in ["stays", "returns", "leaves"] {
        service.caught_up(name, &ids, 20).await;
    }
    returns.stop().await.unwrap();
    leaves.stop().await.unwrap();

    // Of 60 records 45 are left.
    let crashed = Arc::clone(&broker);
    tokio::task::spawn_blocking(move || {
        crashed.kill();
        cut(&partition, 45);
        crashed.start_again();
    })
    .await
    .unwrap();

    // Commands go on. Who finds the topic shorter than it was says so, goes back, and misses nothing.
    service.deposit(&ids, 1).await;
    let returns = service.consume("returns");
    for name in ["stays", "returns"] {
        service.caught_up(name, &ids, 21).await;
        eventually(&format!("{name} says so"), async || lost_tails(name) >= Some(1.0)).await;
    }
    // Also when it is away then, and the topic grows beyond where it had been before.
    stays.stop().await.unwrap();
    service.deposit(&[silent], 1).await;
    service.deposit(&ids, 9).await;
    service.published().await;
    let stays = service.consume("stays");
    for name in ["stays", "returns"] {
        service.caught_up(name, &ids, 30).await;
        service.caught_up(name, &[silent], 1).await;
    }

    // Others miss something: what was lost, or what stands now where they have been.
    let (leaves, late) = (service.consume("leaves"), service.consume("late"));
    eventually("they wait behind gaps, and say so", async || {
        (service.count(GAPS, "leaves", 20).await, service.count(GAPS, "late", 15).await) == (3, 3)
    })
    .await;
    assert_eq!(service.seen("leaves", silent).await, [] as [i64; 0], "no later event tells of a gap there");
    let lag = service.progress.lag("leaves", &[Account::NAME]).await.unwrap();
    assert_eq!((lag.events, lag.parked), (1, 3), "but the lag does");

    assert_eq!(service.relay().rewind(Position::new(45)).await.unwrap(), Position::new(45));
    for name in ["stays", "returns", "leaves", "late"] {
        service.caught_up(name, &ids, 30).await;
        service.caught_up(name, &[silent], 1).await;
        let lag = || service.progress.lag(name, &[Account::NAME]);
        eventually("nothing is left", async || lag().await.unwrap().events == 0).await;
    }
    eventually("nobody waits any longer", async || {
        sqlx::query_scalar::<_, i64>(PARKED).fetch_one(&pool).await.unwrap() == 0
    })
    .await;
    // Also when all of it has come again.
    service.published().await;
    for name in ["stays", "returns", "leaves", "late"] {
        service.caught_up(name, &ids, 30).await;
    }

    for consuming in [stays, returns, leaves, late] {
        consuming.stop().await.unwrap();
    }
    stop.cancel();
    relay.await.unwrap();
    database.drop().await;
}
