//! A handler that fails holds back one aggregate, and nothing is lost or overtaken.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use epoch::{
    Position,
    envelope::StreamKey,
    gate::{Parked, Way},
    handler::Subscription,
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
    gate.deliver(&events, Way::Bus).await.unwrap();
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
    assert!(letters.iter().all(|letter| letter.parked == Parked::Failed && letter.waiting == 2));
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
