//! Parking, dead letters, retry and skip: a failing handler delays one aggregate and loses no event.

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

async fn bank_with_failing_note(text: &str) -> (Bank, PgSubscription, Uuid, Uuid) {
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
async fn failing_event_parks_only_its_aggregate() {
    let (bank, gate, sick, healthy) = bank_with_failing_note("poison").await;
    assert_eq!(bank.seen(healthy).await, [1, 2]);
    assert_eq!(bank.seen(sick).await, [1]);
    let letters = dead_letters::list(&gate, 10).await.unwrap();
    let seen: Vec<_> = letters.iter().map(|letter| (letter.version.get(), letter.error.as_deref())).collect();
    assert_eq!(seen, [(2, Some("poison")), (3, None)]);
    assert!(letters.iter().all(|letter| letter.parked == ParkReason::Failed && letter.waiting == 2));
    // Later events queue too.
    bank.deposit(sick, 4).await;
    deliver_all(&bank, &gate).await;
    assert_eq!(bank.seen(sick).await, [1]);
    assert_eq!(dead_letters::list(&gate, 10).await.unwrap().len(), 3);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_releases_events_in_order() {
    let (bank, gate, sick, _) = bank_with_failing_note("poison").await;
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
async fn skip_drops_one_event_and_releases_the_rest() {
    let (bank, gate, sick, _) = bank_with_failing_note("panic").await;
    let letters = dead_letters::list(&gate, 10).await.unwrap();
    assert_eq!(letters[0].error.as_deref(), Some("handler panicked: poisoned note"));
    let stream = StreamKey { aggregate: "account".into(), id: sick };
    assert_eq!(dead_letters::skip(&gate, &stream).await.unwrap(), 1);
    assert_eq!(bank.seen(sick).await, [1, 3]);
    assert_eq!(dead_letters::list(&gate, 10).await.unwrap(), []);
    let kept: i64 = sqlx::query_scalar("select count(*) from dead_letters where skipped_at is not null")
        .fetch_one(bank.store.pool())
        .await
        .unwrap();
    assert_eq!(kept, 1, "skipped events stay as a record");
    deliver_all(&bank, &gate).await;
    assert_eq!(bank.seen(sick).await, [1, 3], "a skipped event is not applied again");
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_aggregate_applies_nothing_from_any_source() {
    let (bank, gate, sick, _) = bank_with_failing_note("poison").await;
    // The cause is removed, but the aggregate is not released.
    bank.balances.poison.store(false, Ordering::SeqCst);
    let events: Vec<_> = bank.log().await.into_iter().filter(|event| event.aggregate_id == sick).collect();
    for (source, expected) in [
        (DeliverySource::FastPath, DeliveryCounts { gap: 1, ..DeliveryCounts::default() }),
        (DeliverySource::Bus, DeliveryCounts { queued: 1, ..DeliveryCounts::default() }),
        (DeliverySource::Replay, DeliveryCounts { queued: 1, ..DeliveryCounts::default() }),
    ] {
        assert_eq!(gate.deliver(&events[1..2], source).await.unwrap(), expected, "{source}");
        assert_eq!(bank.seen(sick).await, [1], "{source}");
    }
    assert_eq!(dead_letters::list(&gate, 10).await.unwrap().len(), 2, "each event is queued once");
    let stream = StreamKey { aggregate: "account".into(), id: sick };
    assert_eq!(dead_letters::retry(&gate, &stream).await.unwrap(), 2);
    assert_eq!(bank.seen(sick).await, [1, 2, 3]);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_handler_is_cancelled_and_parked() {
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
        assert!(began.elapsed() < Duration::from_secs(60), "the statement on the server must not hold the locks");
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
async fn skip_stops_at_next_failing_event() {
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
    assert_eq!(letters[0].error.as_deref(), Some("poison"), "the next event has failed");
    assert_eq!(dead_letters::skip(&gate, &stream(one)).await.unwrap(), 1);
    assert_eq!(bank.seen(one).await, [1, 3, 5]);
    bank.balances.poison.store(false, Ordering::SeqCst);
    assert_eq!(dead_letters::retry(&gate, &stream(other)).await.unwrap(), 4);
    assert_eq!(bank.seen(other).await, [1, 2, 3, 4, 5]);
    assert_eq!(dead_letters::list(&gate, 10).await.unwrap(), []);
    assert_eq!(dead_letters::retry(&gate, &stream(Uuid::nil())).await.unwrap(), 0, "an unknown stream has no queue");
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn events_delivered_during_release_keep_their_order() {
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
async fn filled_gap_releases_events_up_to_next_gap() {
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
