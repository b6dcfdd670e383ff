//! The gate on Postgres: exactly-once, in-order application from all delivery sources and several processes.

use std::sync::Arc;

use epoch::{
    Envelope, Position,
    gate::DeliverySource,
    handler::{DeliveryCounts, Subscription},
    store::Streamer,
};
use futures::TryStreamExt;
use proptest::prelude::*;
use uuid::Uuid;

use crate::account::Bank;

async fn log(bank: &Bank) -> Vec<Arc<Envelope>> {
    bank.store.stream_all(&[], Position::START).map_ok(Arc::new).try_collect().await.unwrap()
}

#[test]
fn each_event_is_applied_once_from_any_source() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let deliveries = prop::collection::vec((0..24_usize, 1..8_usize, 0..3_u8), 0..40);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(12));
    let result = runner.run(&deliveries, |deliveries| {
        runtime.block_on(async {
            let bank = Bank::open().await;
            let ids: Vec<Uuid> = (0..4).map(|_| Uuid::now_v7()).collect();
            for round in 0..24 {
                bank.deposit(ids[round % 4], 1 + round as i64).await;
            }
            let events = log(&bank).await;
            // Four parts of the log at a time, each through its own subscription, as from four processes.
            for chunk in deliveries.chunks(4) {
                let sources = [DeliverySource::FastPath, DeliverySource::Bus, DeliverySource::Replay];
                let arrivals = chunk.iter().map(|&(start, length, source)| {
                    let piece = events[start..(start + length).min(events.len())].to_vec();
                    let subscription = bank.subscription();
                    async move { subscription.deliver(&piece, sources[usize::from(source)]).await }
                });
                futures::future::try_join_all(arrivals).await.unwrap();
            }
            // Finally the bus delivers everything.
            bank.subscription().deliver(&events, DeliverySource::Bus).await.unwrap();
            assert_eq!(bank.projected().await, bank.folded().await);
            for id in ids {
                assert_eq!(bank.seen(id).await, (1..=6).collect::<Vec<_>>());
            }
            bank.close().await;
        });
        Ok(())
    });
    result.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn fast_path_leaves_gaps_to_the_bus() {
    let bank = Bank::open().await;
    let id = Uuid::now_v7();
    for _ in 0..3 {
        bank.deposit(id, 1).await;
    }
    let (events, gate) = (log(&bank).await, bank.subscription());
    let local = gate.deliver(&events[1..], DeliverySource::FastPath).await.unwrap();
    assert_eq!(local, DeliveryCounts { gap: 2, ..DeliveryCounts::default() });
    assert_eq!(bank.seen(id).await, Vec::<i64>::new());
    let bus = gate.deliver(&events, DeliverySource::Bus).await.unwrap();
    assert_eq!(bus, DeliveryCounts { applied: 3, ..DeliveryCounts::default() });
    let copy = gate.deliver(&events, DeliverySource::FastPath).await.unwrap();
    assert_eq!(copy, DeliveryCounts { duplicate: 3, ..DeliveryCounts::default() });
    bank.close().await;
}

/// Fast-path commits do not wait for the disk. Once the bus has learned that an event is a duplicate, no crash may undo
/// its application.
#[tokio::test(flavor = "multi_thread")]
async fn duplicate_reported_to_bus_is_on_disk() {
    let bank = Bank::open().await;
    let (id, gate) = (Uuid::now_v7(), bank.subscription());
    for round in 0..50 {
        bank.deposit(id, 1).await;
        let events = &log(&bank).await[round..];
        assert_eq!(gate.deliver(events, DeliverySource::FastPath).await.unwrap().applied, 1);
        let applied: String =
            sqlx::query_scalar("select pg_current_wal_insert_lsn()::text").fetch_one(bank.store.pool()).await.unwrap();
        assert_eq!(gate.deliver(events, DeliverySource::Bus).await.unwrap().duplicate, 1);
        let on_disk: bool = sqlx::query_scalar("select pg_current_wal_flush_lsn() >= $1::pg_lsn")
            .bind(applied)
            .fetch_one(bank.store.pool())
            .await
            .unwrap();
        assert!(on_disk, "round {round}");
    }
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gap_on_bus_parks_until_missing_events_arrive() {
    let bank = Bank::open().await;
    let (id, other) = (Uuid::now_v7(), Uuid::now_v7());
    for _ in 0..4 {
        bank.deposit(id, 1).await;
    }
    bank.deposit(other, 1).await;
    let (events, gate) = (log(&bank).await, bank.subscription());
    let parked = gate.deliver(&events[2..], DeliverySource::Bus).await.unwrap();
    assert_eq!(
        parked,
        DeliveryCounts { applied: 1, queued: 2, ..DeliveryCounts::default() },
        "other aggregates continue"
    );
    let waiting = epoch_postgres::dead_letters::list(&gate, 10).await.unwrap();
    assert_eq!(waiting.iter().map(|letter| letter.version.get()).collect::<Vec<_>>(), [3, 4]);
    gate.deliver(&events[..2], DeliverySource::Bus).await.unwrap();
    assert_eq!(bank.seen(id).await, [1, 2, 3, 4], "the gap is closed automatically");
    assert_eq!(epoch_postgres::dead_letters::list(&gate, 10).await.unwrap(), []);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_catches_up_a_new_subscription() {
    let bank = Bank::open().await;
    for round in 0..1_200 {
        let id = Uuid::from_u128(round % 7);
        bank.deposit(id, 1).await;
    }
    let gate = bank.subscription();
    let reached = epoch_postgres::replay(&bank.store, &gate, Position::START).await.unwrap();
    assert_eq!(reached, log(&bank).await.last().unwrap().position);
    assert_eq!(bank.projected().await, bank.folded().await);
    epoch_postgres::replay(&bank.store, &gate, Position::START).await.unwrap();
    assert_eq!(bank.projected().await, bank.folded().await, "a second replay changes nothing");
    bank.close().await;
}
