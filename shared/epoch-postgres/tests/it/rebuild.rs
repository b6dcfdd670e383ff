//! Rebuilds while the old generation serves: no event is lost or repeated, and readers see one generation at a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use epoch::{
    CommandContext, DomainEvent, Version,
    bus::Bus,
    envelope::StreamKey,
    gate::DeliverySource,
    handler::Subscription,
    memory::{MemoryBus, MemoryStore},
    retry::RetryPolicy,
    store::{Append, AppendOutcome, Appender, NewEvent},
};
use epoch_postgres::{
    PgSubscription, Rebuild, RebuildError, RebuildProgress, RebuildSummary, building_generation, dead_letters,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::account::{AccountCommand, Balances, BalancesHandler, Bank, Deposited};

const QUICK: RetryPolicy =
    RetryPolicy { attempts: 2, first: Duration::from_millis(1), limit: Duration::from_millis(2) };

pub(crate) fn ids(count: u128) -> Vec<Uuid> {
    (1..=count).map(Uuid::from_u128).collect()
}

fn stream(id: Uuid) -> StreamKey {
    StreamKey { aggregate: "account".into(), id }
}

pub(crate) async fn deposits(bank: &Bank, ids: &[Uuid], rounds: i64) {
    for round in 1..=rounds {
        for id in ids {
            bank.deposit(*id, round).await;
        }
    }
}

pub(crate) async fn run(
    subscription: PgSubscription,
    bus: Option<Arc<dyn Bus>>,
) -> Result<RebuildSummary, RebuildError> {
    Rebuild::new(subscription, bus).run(&CancellationToken::new(), |_| {}).await
}

pub(crate) async fn query<T>(bank: &Bank, query: &'static str) -> T
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    sqlx::query_scalar(query).fetch_one(bank.store.pool()).await.unwrap()
}

/// Spawns a consumer that delivers all events of the bus until `stop`.
fn spawn_consumer(bus: &MemoryBus, gate: PgSubscription, stop: &CancellationToken) -> tokio::task::JoinHandle<()> {
    let (bus, stop) = (bus.clone(), stop.clone());
    tokio::spawn(async move { bus.consume(Arc::new(gate), stop).await.unwrap() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rebuild_under_load_applies_each_event_once() {
    let bank = Bank::open().await;
    let (bus, stop, ids) = (MemoryBus::new(), CancellationToken::new(), ids(8));
    let (second_store, _) = bank.another_process().await;
    let second = PgSubscription::new(
        Arc::new(BalancesHandler(Balances::new())),
        second_store,
        epoch_postgres::Progress::new(bank.database.epoch().await),
    );
    let relay =
        tokio::spawn(epoch_postgres::Relay::new(bank.store.clone(), Arc::new(bus.clone()), "test").run(stop.clone()));
    let processes = [spawn_consumer(&bus, bank.subscription(), &stop), spawn_consumer(&bus, second, &stop)];
    deposits(&bank, &ids, 40).await;
    for id in &ids {
        bank.progress.wait_for("balances", &stream(*id), Version::new(40), Duration::from_secs(20)).await.unwrap();
    }
    // The wrong rows that a bug has left.
    sqlx::query("update balances set balance = balance - 7").execute(bank.store.pool()).await.unwrap();

    let done = AtomicBool::new(false);
    let writer = async {
        let mut rounds = 40;
        while !done.load(Ordering::SeqCst) || rounds < 60 {
            for id in &ids {
                let executed = bank.accounts.execute(*id, &AccountCommand::Deposit(1), &CommandContext::new()).await;
                let version = executed.unwrap().version;
                let long = Duration::from_secs(20);
                bank.progress.wait_for("balances", &stream(*id), version, long).await.unwrap();
                // A reader that waited for a version sees it, in either generation.
                let seen: i64 = sqlx::query_scalar("select count(*) from seen where id = $1")
                    .bind(id)
                    .fetch_one(bank.store.pool())
                    .await
                    .unwrap();
                assert!(seen >= i64::try_from(version.get()).unwrap(), "{seen} of {version}");
            }
            rounds += 1;
        }
    };
    let rebuild = async {
        for generation in 2..=4 {
            let rebuilt = run(bank.subscription(), None).await.unwrap();
            assert_eq!((rebuilt.generation, rebuilt.resumed), (generation, false));
        }
        done.store(true, Ordering::SeqCst);
    };
    tokio::join!(writer, rebuild);
    stop.cancel();
    for process in processes {
        process.await.unwrap();
    }
    relay.await.unwrap();
    assert_eq!(bank.projected().await, bank.folded().await);
    for id in ids {
        let versions = bank.seen(id).await;
        assert_eq!(versions, (1..=versions.len() as i64).collect::<Vec<_>>());
    }
    let left: i64 = query(&bank, "select count(*) from pg_namespace where nspname like 'test_g%'").await;
    assert_eq!(left, 0, "no schema remains");
    let keys: i64 = query(&bank, "select count(distinct subscription) from cursors").await;
    assert_eq!(keys, 1, "no cursors remain");
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_rebuild_is_resumed() {
    let bank = Bank::open().await;
    let ids = ids(25);
    deposits(&bank, &ids, 100).await;
    bank.subscription().deliver(&bank.log().await, DeliverySource::Bus).await.unwrap();
    let (reports, mut reported) = mpsc::unbounded_channel::<RebuildProgress>();
    let subscription = bank.subscription();
    let killed = tokio::spawn(async move {
        let rebuild = Rebuild::new(subscription, None);
        rebuild
            .run(&CancellationToken::new(), move |progress| {
                let _ = reports.send(*progress);
            })
            .await
    });
    let first = reported.recv().await.unwrap();
    assert!((1..2_500).contains(&first.done), "{first:?}");
    assert_eq!(first.total, 2_500);
    killed.abort();
    assert!(killed.await.unwrap_err().is_cancelled());
    let applied: i64 = query(&bank, "select sum(version)::bigint from cursors where subscription = 'balances@2'").await;
    assert!((1..2_500).contains(&applied), "the rebuild was interrupted: {applied}");
    assert_eq!(bank.projected().await, bank.folded().await, "the old generation serves");

    deposits(&bank, &ids, 1).await;
    bank.subscription().deliver(&bank.log().await, DeliverySource::Bus).await.unwrap();
    let rebuilt = loop {
        // The server releases the killed rebuild's lock once it notices the closed connection.
        match run(bank.subscription(), None).await {
            Err(RebuildError::Busy { .. }) => tokio::task::yield_now().await,
            result => break result.unwrap(),
        }
    };
    assert!(rebuilt.resumed && rebuilt.generation == 2, "{rebuilt:?}");
    assert!(rebuilt.applied <= 2_525 - u64::try_from(applied).unwrap(), "{rebuilt:?} after {applied}");
    assert_eq!(bank.projected().await, bank.folded().await);
    for id in ids {
        assert_eq!(bank.seen(id).await, (1..=101).collect::<Vec<_>>());
    }
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn process_of_other_revision_writes_nothing() {
    let bank = Bank::open().await;
    let ids = ids(3);
    deposits(&bank, &ids, 2).await;
    let (old, new) = (bank.subscription(), bank.subscription_of(&Balances::of_revision(2)));
    old.deliver(&bank.log().await, DeliverySource::Bus).await.unwrap();
    let before = bank.projected().await;
    deposits(&bank, &ids, 1).await;
    let refused = new.deliver(&bank.log().await, DeliverySource::Bus).await.unwrap_err();
    assert!(refused.detail.contains("revision"), "{refused}");
    assert_eq!(bank.projected().await, before, "the tables keep the first revision");

    run(bank.subscription_of(&Balances::of_revision(2)), None).await.unwrap();
    let hundredfold: Vec<_> = bank.folded().await.into_iter().map(|(id, balance)| (id, balance * 100)).collect();
    assert_eq!(bank.projected().await, hundredfold);
    deposits(&bank, &ids, 1).await;
    let refused = old.deliver(&bank.log().await, DeliverySource::Bus).await.unwrap_err();
    assert!(refused.detail.contains("revision"), "{refused}");
    assert_eq!(bank.projected().await, hundredfold, "the old process does not write the new tables");
    let events = bank.log().await;
    assert_eq!(new.deliver(&events, DeliverySource::Bus).await.unwrap().applied, 3, "the new process continues");
    assert_eq!(dead_letters::list(&new, 10).await.unwrap(), [], "no event was parked");
    bank.close().await;
}

/// Publishes an event of another service, which is not in the log.
async fn publish(bus: &MemoryBus, others: &MemoryStore, id: Uuid, version: u64) {
    let append = Append {
        aggregate: "account",
        aggregate_id: id,
        expected: Version::new(version - 1),
        previous: None,
        events: vec![NewEvent::encode(&crate::account::AccountEvent::from(Deposited { amount: 1 })).unwrap()],
        context: CommandContext::new(),
    };
    let Ok(AppendOutcome::Committed { events, .. }) = others.append(append).await else { panic!("not appended") };
    assert_eq!(events[0].event_name, crate::account::AccountEvent::NAMES[0]);
    bus.publish(&events).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rebuild_reads_other_services_from_bus_start() {
    let bank = Bank::open().await;
    let (bus, others, ids, stop) = (MemoryBus::new(), MemoryStore::new(), ids(10), CancellationToken::new());
    let serving = spawn_consumer(&bus, bank.subscription(), &stop);
    for version in 1..=50 {
        for id in &ids {
            publish(&bus, &others, *id, version).await;
        }
    }
    let last = stream(ids[9]);
    bank.progress.wait_for("balances", &last, Version::new(50), Duration::from_secs(20)).await.unwrap();
    sqlx::query("delete from balances").execute(bank.store.pool()).await.unwrap();
    let publish_more = async {
        for version in 51..=100 {
            for id in &ids {
                publish(&bus, &others, *id, version).await;
            }
        }
    };
    let (rebuilt, ()) = tokio::join!(run(bank.subscription(), Some(Arc::new(bus.clone()))), publish_more);
    assert_eq!(rebuilt.unwrap().generation, 2);
    for id in &ids {
        bank.progress.wait_for("balances", &stream(*id), Version::new(100), Duration::from_secs(20)).await.unwrap();
        assert_eq!(bank.seen(*id).await, (1..=100).collect::<Vec<_>>());
    }
    assert_eq!(bank.projected().await, ids.iter().map(|id| (*id, 100)).collect::<Vec<_>>());

    // A bus without the first events stalls the rebuild; the old generation keeps serving.
    let stalling = Rebuild::new(bank.subscription(), Some(Arc::new(MemoryBus::new())));
    let stalling = stalling.with_stall_timeout(Duration::from_millis(500));
    let stalled = stalling.run(&CancellationToken::new(), |_| {}).await.unwrap_err();
    assert!(matches!(stalled, RebuildError::Stalled { wanted: 100, reached: 0, .. }), "{stalled}");
    assert_eq!(bank.projected().await.len(), 10);
    stop.cancel();
    serving.await.unwrap();
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_new_generation_keeps_old_one_serving() {
    let bank = Bank::open().await;
    let (sick, healthy) = (Uuid::from_u128(1), Uuid::from_u128(2));
    bank.deposit(sick, 1).await;
    bank.note(sick, "poison").await;
    bank.deposit(sick, 1).await;
    bank.deposit(healthy, 1).await;
    bank.subscription().deliver(&bank.log().await, DeliverySource::Bus).await.unwrap();
    // The new handler has a bug that the old one did not have.
    let buggy = Balances::of_revision(2);
    buggy.poison.store(true, Ordering::SeqCst);
    let subscription = bank.subscription_of(&buggy).with_retry(QUICK);
    let parked = run(subscription.clone(), None).await.unwrap_err();
    assert!(
        matches!(&parked, RebuildError::Parked { aggregates: 1, first, generation } if first.id == sick && generation == "balances@2"),
        "{parked}"
    );
    assert_eq!(bank.projected().await, bank.folded().await, "the old generation serves");
    let building = building_generation(&subscription).await.unwrap().unwrap();
    let letters = dead_letters::list(&building, 10).await.unwrap();
    assert_eq!(letters.iter().map(|letter| letter.version.get()).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(dead_letters::skip(&building, &stream(sick)).await.unwrap(), 1);
    let rebuilt = run(subscription, None).await.unwrap();
    assert!(rebuilt.resumed, "{rebuilt:?}");
    assert_eq!(bank.projected().await, [(sick, 200), (healthy, 100)]);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_events_move_to_the_new_generation() {
    let bank = Bank::open().await;
    let (sick, late) = (Uuid::from_u128(1), Uuid::from_u128(2));
    bank.balances.poison.store(true, Ordering::SeqCst);
    bank.note(sick, "poison").await;
    bank.deposit(sick, 1).await;
    deposits(&bank, &[late], 3).await;
    let events = bank.log().await;
    let gate = bank.subscription().with_retry(QUICK);
    gate.deliver(&events[..2], DeliverySource::Bus).await.unwrap();
    // The event in between was lost.
    gate.deliver(&[events[2].clone(), events[4].clone()], DeliverySource::Bus).await.unwrap();
    assert_eq!(dead_letters::list(&gate, 10).await.unwrap().len(), 3);
    run(gate.clone(), None).await.unwrap();
    assert_eq!(bank.seen(late).await, [1, 2, 3], "the rebuild read the missing event from the log");
    let letters = dead_letters::list(&gate, 10).await.unwrap();
    let waiting: Vec<_> = letters.iter().map(|letter| (letter.stream.id, letter.version.get())).collect();
    assert_eq!(waiting, [(sick, 1), (sick, 2)]);
    bank.balances.poison.store(false, Ordering::SeqCst);
    assert_eq!(dead_letters::retry(&bank.subscription(), &stream(sick)).await.unwrap(), 2);
    assert_eq!(bank.projected().await, bank.folded().await);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_rebuild_is_busy() {
    let bank = Bank::open().await;
    deposits(&bank, &ids(5), 100).await;
    bank.subscription().deliver(&bank.log().await, DeliverySource::Bus).await.unwrap();
    let (one, other) = tokio::join!(run(bank.subscription(), None), run(bank.subscription(), None));
    let results = [one, other];
    let won = results.iter().filter(|result| result.is_ok()).count();
    let busy = results.iter().filter(|result| matches!(result, Err(RebuildError::Busy { .. }))).count();
    assert_eq!((won, busy), (1, 1), "{results:?}");
    assert_eq!(bank.projected().await, bank.folded().await);
    bank.close().await;
}
