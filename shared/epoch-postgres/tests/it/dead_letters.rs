//! A handler that fails holds back one aggregate, and nothing is lost or overtaken.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use epoch::{
    Position,
    envelope::StreamKey,
    gate::{DeliverySource, ParkReason},
    handler::{DeliveryCounts, Subscription},
    retry::RetryPolicy,
    store::Streamer,
};
use epoch_postgres::{PgSubscription, dead_letters};
use futures::TryStreamExt;
use uuid::Uuid;

use crate::account::Bank;

const QUICK: RetryPolicy =
    RetryPolicy { attempts: 3, first: Duration::from_millis(1), limit: Duration::from_millis(2) };

async fn deliver_all(bank: &Bank, gate: &PgSubscription) {
    let events: Vec<_> = bank.store.stream_all(&[], Position::START).map_ok(Arc::new).try_collect().await.unwrap();
    gate.deliver(&events, DeliverySource::Bus).await.unwrap();
}

async fn poisoned(text: &str) -> (Bank, PgSubscription, Uuid, Uuid) {
    let bank = Bank::open().await;
    let (sick, healthy) = (Uuid::now_v7(), Uuid::now_v7());
    bank.balances.poison.store(true, Ordering::SeqCst);
    bank.deposit(sick, 1).await;
    bank.deposit(healthy, 1).await;
    bank.note(sick, text).await;
    bank.deposit(sick, 2).await;
    bank.deposit(healthy, 2).await;
    let gate = bank.subscription().with_retry(QUICK);
    deliver_all(&bank, &gate).await;
    (bank, gate, sick, healthy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_event_parks_its_aggregate_only() {
    let (bank, gate, sick, healthy) = poisoned("poison").await;
    assert_eq!(bank.seen(healthy).await, [1, 2]);
    assert_eq!(bank.seen(sick).await, [1]);
    let letters = dead_letters::list(&gate, 10).await.unwrap();
    let seen: Vec<_> = letters.iter().map(|letter| (letter.version.get(), letter.error.as_deref())).collect();
    assert_eq!(seen, [(2, Some("poison")), (3, None)]);
    assert!(letters.iter().all(|letter| letter.parked == ParkReason::Failed && letter.waiting == 2));
    // What comes later queues too.
    bank.deposit(sick, 4).await;
    deliver_all(&bank, &gate).await;
    assert_eq!(bank.seen(sick).await, [1]);
    assert_eq!(dead_letters::list(&gate, 10).await.unwrap().len(), 3);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_releases_in_order_once_the_cause_is_gone() {
    let (bank, gate, sick, _) = poisoned("poison").await;
    let stream = StreamKey { aggregate: "account".into(), id: sick };
    assert!(dead_letters::retry(&gate, &stream).await.is_err());
    assert_eq!(dead_letters::list(&gate, 10).await.unwrap()[0].attempts, 2);
    bank.balances.poison.store(false, Ordering::SeqCst);
    assert_eq!(dead_letters::retry(&gate, &stream).await.unwrap(), 2);
    bank.deposit(sick, 4).await;
    deliver_all(&bank, &gate).await;
    assert_eq!(bank.seen(sick).await, [1, 2, 3, 4]);
    assert_eq!(bank.projected().await, bank.folded().await);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn skip_gives_up_one_event_and_goes_on() {
    let (bank, gate, sick, _) = poisoned("panic").await;
    let letters = dead_letters::list(&gate, 10).await.unwrap();
    assert_eq!(letters[0].error.as_deref(), Some("handler panicked: told to"));
    let stream = StreamKey { aggregate: "account".into(), id: sick };
    assert_eq!(dead_letters::skip(&gate, &stream).await.unwrap(), 1);
    assert_eq!(bank.seen(sick).await, [1, 3]);
    assert_eq!(dead_letters::list(&gate, 10).await.unwrap(), []);
    let kept: i64 = sqlx::query_scalar("select count(*) from dead_letters where skipped_at is not null")
        .fetch_one(bank.store.pool())
        .await
        .unwrap();
    assert_eq!(kept, 1, "what was skipped can be looked up");
    deliver_all(&bank, &gate).await;
    assert_eq!(bank.seen(sick).await, [1, 3], "and doesn't come back");
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_an_aggregate_is_parked_its_next_event_is_not_applied_whichever_way_it_comes() {
    let (bank, gate, sick, _) = poisoned("poison").await;
    // The cause is gone, but nobody has said so.
    bank.balances.poison.store(false, Ordering::SeqCst);
    let events: Vec<_> = bank.log().await.into_iter().filter(|event| event.aggregate_id == sick).collect();
    for (way, expected) in [
        (DeliverySource::FastPath, DeliveryCounts { gap: 1, ..DeliveryCounts::default() }),
        (DeliverySource::Bus, DeliveryCounts { queued: 1, ..DeliveryCounts::default() }),
        (DeliverySource::Replay, DeliveryCounts { queued: 1, ..DeliveryCounts::default() }),
    ] {
        assert_eq!(gate.deliver(&events[1..2], way).await.unwrap(), expected, "{way}");
        assert_eq!(bank.seen(sick).await, [1], "{way}");
    }
    assert_eq!(dead_letters::list(&gate, 10).await.unwrap().len(), 2, "each waits once");
    let stream = StreamKey { aggregate: "account".into(), id: sick };
    assert_eq!(dead_letters::retry(&gate, &stream).await.unwrap(), 2);
    assert_eq!(bank.seen(sick).await, [1, 2, 3]);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_hangs_is_given_up_and_parked() {
    for text in ["hang", "sleep"] {
        let bank = Bank::open().await;
        let (sick, healthy) = (Uuid::now_v7(), Uuid::now_v7());
        bank.balances.poison.store(true, Ordering::SeqCst);
        bank.note(sick, text).await;
        bank.deposit(sick, 1).await;
        bank.deposit(healthy, 1).await;
        let gate = bank.subscription().with_retry(QUICK).with_deadline(Duration::from_millis(100));
        let began = std::time::Instant::now();
        deliver_all(&bank, &gate).await;
        assert!(began.elapsed() < Duration::from_secs(60), "the server's statement doesn't keep the locks");
        assert_eq!((bank.seen(sick).await, bank.seen(healthy).await), (vec![], vec![1]));
        let letters = dead_letters::list(&gate, 10).await.unwrap();
        assert_eq!(letters[0].error.as_deref(), Some("handler took longer than 0 s"));
        bank.balances.poison.store(false, Ordering::SeqCst);
        let stream = StreamKey { aggregate: "account".into(), id: sick };
        assert_eq!(dead_letters::retry(&gate, &stream).await.unwrap(), 2);
        bank.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn skip_stops_at_the_next_event_that_fails_and_several_aggregates_are_released_one_by_one() {
    let bank = Bank::open().await;
    let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    bank.balances.poison.store(true, Ordering::SeqCst);
    for id in [one, other] {
        bank.deposit(id, 1).await;
        bank.note(id, "poison").await;
        bank.deposit(id, 2).await;
        bank.note(id, "poison").await;
        bank.deposit(id, 4).await;
    }
    let gate = bank.subscription().with_retry(QUICK);
    deliver_all(&bank, &gate).await;
    let stream = |id| StreamKey { aggregate: "account".into(), id };
    let failed = dead_letters::skip(&gate, &stream(one)).await.unwrap_err();
    assert_eq!(failed.to_string(), "poison");
    assert_eq!(bank.seen(one).await, [1, 3]);
    let letters = dead_letters::list(&gate, 10).await.unwrap();
    let waiting: Vec<_> = letters.iter().map(|letter| (letter.stream.id, letter.version.get())).collect();
    assert_eq!(waiting, [(one, 4), (one, 5), (other, 2), (other, 3), (other, 4), (other, 5)]);
    assert_eq!(letters[0].error.as_deref(), Some("poison"), "it failed too");
    assert_eq!(dead_letters::skip(&gate, &stream(one)).await.unwrap(), 1);
    assert_eq!(bank.seen(one).await, [1, 3, 5]);
    bank.balances.poison.store(false, Ordering::SeqCst);
    assert_eq!(dead_letters::retry(&gate, &stream(other)).await.unwrap(), 4);
    assert_eq!(bank.seen(other).await, [1, 2, 3, 4, 5]);
    assert_eq!(dead_letters::list(&gate, 10).await.unwrap(), []);
    assert_eq!(dead_letters::retry(&gate, &stream(Uuid::nil())).await.unwrap(), 0, "nothing waits for nobody");
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn events_that_arrive_while_others_are_released_are_not_lost_or_overtaken() {
    let bank = Bank::open().await;
    let sick = Uuid::now_v7();
    let stream = StreamKey { aggregate: "account".into(), id: sick };
    bank.balances.poison.store(true, Ordering::SeqCst);
    bank.note(sick, "poison").await;
    for _ in 2..=400 {
        bank.deposit(sick, 1).await;
    }
    let events = bank.log().await;
    let (queued, arriving) = events.split_at(250);
    let gate = bank.subscription().with_retry(QUICK);
    gate.deliver(queued, DeliverySource::Bus).await.unwrap();
    assert_eq!(dead_letters::list(&gate, 1).await.unwrap()[0].waiting, 250);
    bank.balances.poison.store(false, Ordering::SeqCst);
    let arrive = async {
        let elsewhere = bank.subscription();
        for piece in arriving.chunks(10) {
            elsewhere.deliver(piece, DeliverySource::Bus).await.unwrap();
        }
    };
    let (released, ()) = tokio::join!(dead_letters::retry(&gate, &stream), arrive);
    assert!(released.unwrap() >= 250);
    assert_eq!(bank.seen(sick).await, (1..=400).collect::<Vec<_>>());
    assert_eq!(dead_letters::list(&gate, 10).await.unwrap(), []);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_that_is_filled_late_releases_what_waited_up_to_the_next_gap() {
    let bank = Bank::open().await;
    let id = Uuid::now_v7();
    for _ in 1..=9 {
        bank.deposit(id, 1).await;
    }
    let (events, gate) = (bank.log().await, bank.subscription());
    let deliver = async |versions: &[usize]| {
        let piece: Vec<_> = versions.iter().map(|version| Arc::clone(&events[version - 1])).collect();
        gate.deliver(&piece, DeliverySource::Bus).await.unwrap()
    };
    deliver(&[1, 3, 4, 6, 9]).await;
    assert_eq!(bank.seen(id).await, [1]);
    deliver(&[2]).await;
    assert_eq!(bank.seen(id).await, [1, 2, 3, 4]);
    deliver(&[7, 8]).await;
    assert_eq!(bank.seen(id).await, [1, 2, 3, 4], "5 is missing");
    deliver(&[5]).await;
    assert_eq!(bank.seen(id).await, (1..=9).collect::<Vec<_>>());
    assert_eq!(dead_letters::list(&gate, 10).await.unwrap(), []);
    bank.close().await;
}
