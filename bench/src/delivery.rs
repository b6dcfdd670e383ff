//! Time from commit to visibility in the read model over the fast path and over Kafka, and the catch-up rate of a new subscription.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use epoch::{
    Batch, CommandContext, Repository, Version,
    bus::Bus,
    gate::DeliverySource,
    handler::{DeliverError, DeliveryCounts, EventHandler, Subscription},
    FastPath,
    store::{Append, AppendOutcome, Appender, NewEvent},
};
use epoch_kafka::{KafkaBus, KafkaConfig};
use epoch_postgres::{HandlerError, PgStore, PgSubscription, PgTx, Progress, Relay, testkit::TestDatabase};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    note::{Note, NoteEvent, Noted, text},
    report::percentile,
};

const SAMPLES: usize = 500;
const EVENTS: usize = 50_000;
const AGGREGATES: usize = 1_000;

/// A read model with the number of notes and the length of the last note per aggregate. Counts its batches.
#[derive(Default)]
struct Notes {
    batches: AtomicUsize,
}

#[async_trait]
impl EventHandler<PgTx> for Notes {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        "notes"
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &["note"]
    }

    async fn handle(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        self.batches.fetch_add(1, Ordering::Relaxed);
        let mut ids = Vec::with_capacity(events.len());
        let mut lengths = Vec::with_capacity(events.len());
        for event in events {
            let NoteEvent::Noted(noted) = event.decode()?;
            ids.push(event.aggregate_id);
            lengths.push(i64::try_from(noted.text.len()).map_err(HandlerError::refused)?);
        }
        sqlx::query(
            "insert into notes (id, notes, length) select id, count(*), max(length) from unnest($1::uuid[], $2::bigint[]) \
             as n (id, length) group by id order by id \
             on conflict (id) do update set notes = notes.notes + excluded.notes, length = excluded.length",
        )
        .bind(ids)
        .bind(lengths)
        .execute(tx.connection())
        .await?;
        Ok(())
    }
}

/// A subscription that reports when it has applied an event.
struct Watched {
    inner: Arc<PgSubscription>,
    applied: mpsc::UnboundedSender<(Uuid, Instant)>,
}

#[async_trait]
impl Subscription for Watched {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aggregates(&self) -> &'static [&'static str] {
        self.inner.aggregates()
    }

    async fn deliver(&self, events: &Batch, way: DeliverySource) -> Result<DeliveryCounts, DeliverError> {
        let delivered = self.inner.deliver(events, way).await?;
        let now = Instant::now();
        for event in events {
            // At the end, the receiver is closed.
            let _ = self.applied.send((event.aggregate_id, now));
        }
        Ok(delivered)
    }
}

/// A store, its subscription, and their tasks.
struct Side {
    store: PgStore,
    subscription: Arc<Watched>,
    applied: mpsc::UnboundedReceiver<(Uuid, Instant)>,
    handler: Arc<Notes>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Side {
    async fn new(database: &TestDatabase, schema: &str) -> Result<Self> {
        let pool = database.pool(schema, &sqlx::migrate::Migrator::DEFAULT).await;
        sqlx::raw_sql("create table notes (id uuid primary key, notes bigint not null, length bigint not null)")
            .execute(&pool)
            .await?;
        let mut tasks = JoinSet::new();
        let (store, appender) = PgStore::new(pool.clone(), FastPath::new());
        tasks.spawn(appender.run());
        let progress = Progress::new(pool);
        let handler = Arc::new(Notes::default());
        let inner = Arc::new(PgSubscription::new(handler.clone(), store.clone(), progress));
        let (sender, applied) = mpsc::unbounded_channel();
        let subscription = Arc::new(Watched { inner, applied: sender });
        Ok(Self { store, subscription, applied, handler, stop: CancellationToken::new(), tasks })
    }

    fn relay(&mut self, bus: &Arc<KafkaBus>) {
        self.tasks.spawn(Relay::new(self.store.clone(), bus.clone(), "bench").run(self.stop.clone()));
    }

    fn consume(&mut self, bus: &Arc<KafkaBus>) {
        let (bus, subscription, stop) = (bus.clone(), self.subscription.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            if let Err(error) = bus.consume(subscription, stop).await {
                eprintln!("consumer failed: {error}");
            }
        });
    }

    /// Appends one event of a new aggregate. Returns the microseconds from its commit to its visibility in the read model.
    async fn sample(&mut self) -> Result<u64> {
        let id = Uuid::now_v7();
        let event = NewEvent::encode(&NoteEvent::from(Noted { text: text() }))?;
        let context = CommandContext::new();
        let append = Append {
            aggregate: "note",
            aggregate_id: id,
            expected: Version::ZERO,
            previous: None,
            events: vec![event],
            context,
        };
        let AppendOutcome::Committed { .. } = self.store.append(append).await? else { bail!("not committed") };
        let committed = Instant::now();
        let applied = async {
            loop {
                match self.applied.recv().await {
                    Some((applied, at)) if applied == id => return Ok(at),
                    Some(_) => {}
                    None => bail!("subscription ended"),
                }
            }
        };
        let visible =
            tokio::time::timeout(Duration::from_secs(20), applied).await.context("event is not visible")??;
        Ok(u64::try_from(visible.saturating_duration_since(committed).as_micros())?)
    }

    async fn close(mut self) {
        self.stop.cancel();
        self.tasks.shutdown().await;
    }
}

fn bus(servers: &str) -> Result<Arc<KafkaBus>> {
    let run = format!("bench-{}", Uuid::now_v7().simple());
    let config = KafkaConfig { namespace: run.clone(), group_prefix: run, ..KafkaConfig::new(servers) };
    Ok(Arc::new(KafkaBus::connect(config)?))
}

pub async fn visible(server: &str, kafka: &str) -> Result<()> {
    let database = TestDatabase::create_on(server).await;
    let mut local = Side::new(&database, "local").await?;
    local.tasks.spawn(local.store.local().serve(local.subscription.clone()));
    let mut over_kafka = Side::new(&database, "kafka").await?;
    let bus = bus(kafka)?;
    bus.ensure_topics(&["note"]).await?;
    over_kafka.relay(&bus);
    over_kafka.consume(&bus);
    over_kafka.sample().await.context("waiting for the first event over Kafka")?;
    local.sample().await?;
    let (mut by_fast_path, mut by_kafka) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        by_fast_path.push(local.sample().await?);
        by_kafka.push(over_kafka.sample().await?);
    }
    println!("\n## from commit to visible in the read model ({SAMPLES} events each, in turns)\n");
    println!("| source | p50 | p99 |\n|---|---|---|");
    for (source, samples) in [("fast path", &by_fast_path), ("Kafka", &by_kafka)] {
        println!("| {source} | {:.2} ms | {:.2} ms |", percentile(samples, 0.5), percentile(samples, 0.99));
    }
    println!("\nKafka / fast path at p50: {:.1}", percentile(&by_kafka, 0.5) / percentile(&by_fast_path, 0.5));
    local.close().await;
    over_kafka.close().await;
    database.drop().await;
    Ok(())
}

pub async fn catch_up(server: &str, kafka: &str) -> Result<()> {
    let database = TestDatabase::create_on(server).await;
    let mut side = Side::new(&database, "catch_up").await?;
    let bus = bus(kafka)?;
    bus.ensure_topics(&["note"]).await?;
    let notes = Repository::<Note, _>::new(side.store.clone());
    let writers = (0..64).map(|writer| {
        let notes = notes.clone();
        tokio::spawn(async move {
            let ids: Vec<Uuid> = (writer..AGGREGATES).step_by(64).map(|_| Uuid::now_v7()).collect();
            let text = text();
            for event in 0..EVENTS / 64 {
                notes.execute(ids[event % ids.len()], &text, &CommandContext::new()).await?;
            }
            anyhow::Ok(())
        })
    });
    for writer in futures::future::join_all(writers).await {
        writer??;
    }
    let events = EVENTS / 64 * 64;
    let start = Instant::now();
    side.relay(&bus);
    let relay = Relay::new(side.store.clone(), bus.clone(), "bench");
    loop {
        let status = relay.status().await?;
        if status.fence > 0 && status.published == status.head {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let relayed = start.elapsed();
    let start = Instant::now();
    side.consume(&bus);
    let mut first = None;
    loop {
        let applied: Option<i64> =
            sqlx::query_scalar("select sum(notes)::bigint from notes").fetch_one(side.store.pool()).await?;
        if applied == Some(i64::try_from(events)?) {
            break;
        }
        if let (Some(applied), None) = (applied, first) {
            first = Some((start.elapsed(), applied));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let applied = start.elapsed();
    println!("\n## {events} events of {AGGREGATES} aggregates through Kafka\n");
    println!("relay to Kafka: {:.0} events/s", events as f64 / relayed.as_secs_f64());
    let (joined, before) = first.context("no events were applied")?;
    let rate = (events as f64 - before as f64) / (applied - joined).as_secs_f64();
    println!(
        "catch-up of a new subscription: {rate:.0} events/s, after {:.1} s to join its group",
        joined.as_secs_f64()
    );
    println!("events per transaction: {:.0}", events as f64 / side.handler.batches.load(Ordering::Relaxed) as f64);
    side.close().await;
    database.drop().await;
    Ok(())
}
