//! The gate on Postgres: exactly once, in order, by three ways at once, from two processes.

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
fn every_way_in_any_order_any_number_of_times_applies_each_event_once() {
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
            // Pieces of the log, four at a time, each by a subscription of its own as if from another process.
            for chunk in deliveries.chunks(4) {
                let ways = [DeliverySource::FastPath, DeliverySource::Bus, DeliverySource::Replay];
                let arrivals = chunk.iter().map(|&(start, length, way)| {
                    let piece = events[start..(start + length).min(events.len())].to_vec();
                    let subscription = bank.subscription();
                    async move { subscription.deliver(&piece, ways[usize::from(way)]).await }
                });
                futures::future::try_join_all(arrivals).await.unwrap();
            }
            // At last the bus brings everything.
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
async fn the_local_way_gives_up_on_a_gap_and_the_bus_brings_it() {
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

/// The local way doesn't wait for the disk. Once the bus has been told that it needn't bring an event again, no crash may undo it.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_bus_is_told_was_applied_is_on_disk() {
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
async fn a_gap_on_the_bus_parks_until_the_missing_events_come() {
    let bank = Bank::open().await;
    let (id, other) = (Uuid::now_v7(), Uuid::now_v7());
    for _ in 0..4 {
        bank.deposit(id, 1).await;
    }
    bank.deposit(other, 1).await;
    let (events, gate) = (log(&bank).await, bank.subscription());
    let parked = gate.deliver(&events[2..], DeliverySource::Bus).await.unwrap();
    assert_eq!(parked, DeliveryCounts { applied: 1, queued: 2, ..DeliveryCounts::default() }, "others go on");
    let waiting = epoch_postgres::dead_letters::list(&gate, 10).await.unwrap();
    assert_eq!(waiting.iter().map(|letter| letter.version.get()).collect::<Vec<_>>(), [3, 4]);
    gate.deliver(&events[..2], DeliverySource::Bus).await.unwrap();
    assert_eq!(bank.seen(id).await, [1, 2, 3, 4], "it goes on by itself");
    assert_eq!(epoch_postgres::dead_letters::list(&gate, 10).await.unwrap(), []);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_brings_a_new_subscription_up_to_date() {
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
    assert_eq!(bank.projected().await, bank.folded().await, "again changes nothing");
    bank.close().await;
}
