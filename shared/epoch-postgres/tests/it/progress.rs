//! Reading your own writes.

use std::{sync::Arc, time::Duration};

use epoch::{Position, Version, envelope::StreamKey, gate::DeliverySource, handler::Subscription, store::Streamer};
use epoch_postgres::{Lag, Progress, WaitError};
use futures::TryStreamExt;
use uuid::Uuid;

use crate::account::Bank;

#[tokio::test(flavor = "multi_thread")]
async fn wait_for_returns_at_version_or_fails() {
    let bank = Bank::open().await;
    let id = Uuid::now_v7();
    let stream = StreamKey { aggregate: "account".into(), id };
    bank.deposit(id, 1).await;
    let early = bank.progress.wait_for("balances", &stream, Version::new(1), Duration::from_millis(60)).await;
    assert!(matches!(early, Err(WaitError::NotReached { reached: Version::ZERO, .. })));
    // One task waits in the applying process, the other in another process.
    let elsewhere = Progress::new(bank.database.epoch().await);
    let (here, there) = (bank.progress.clone(), stream.clone());
    let waiting = tokio::spawn(async move {
        let long = Duration::from_secs(20);
        tokio::try_join!(
            here.wait_for("balances", &there, Version::new(1), long),
            elsewhere.wait_for("balances", &there, Version::new(1), long),
        )
    });
    let events: Vec<_> = bank.store.stream_all(&[], Position::START).map_ok(Arc::new).try_collect().await.unwrap();
    bank.subscription().deliver(&events, DeliverySource::Bus).await.unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(bank.progress.version("balances", &stream).await.unwrap(), Version::new(1));
    assert_eq!(bank.progress.lag("balances", &["account"]).await.unwrap().events, 0);
    assert_eq!(bank.progress.lag("new_subscription", &["account"]).await.unwrap().events, 1);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_counts_unapplied_events_without_parked() {
    let bank = Bank::open().await;
    let lag = async || bank.progress.lag("balances", &["account"]).await.unwrap();
    let gate = bank.subscription().with_retry(epoch::retry::RetryPolicy {
        attempts: 1,
        first: Duration::from_millis(1),
        limit: Duration::from_millis(1),
    });
    assert_eq!(lag().await, Lag { exact: true, ..Lag::default() });
    let (sick, healthy) = (Uuid::from_u128(1), Uuid::from_u128(2));
    for _ in 0..5 {
        bank.deposit(healthy, 1).await;
    }
    sqlx::query("update events set recorded_at = recorded_at - 60000").execute(bank.store.pool()).await.unwrap();
    let behind = lag().await;
    assert!(behind.events == 5 && behind.exact && behind.behind_ms >= 60_000, "{behind:?}");
    let events = bank.log().await;
    gate.deliver(&events[..3], DeliverySource::Bus).await.unwrap();
    assert_eq!(lag().await.events, 2);
    assert_eq!(lag().await.events, 2, "a second call returns the same");
    gate.deliver(&events, DeliverySource::Bus).await.unwrap();
    assert_eq!((lag().await.events, lag().await.behind_ms), (0, 0));
    bank.balances.poison.store(true, std::sync::atomic::Ordering::SeqCst);
    bank.note(sick, "poison").await;
    bank.deposit(sick, 1).await;
    gate.deliver(&bank.log().await, DeliverySource::Bus).await.unwrap();
    bank.deposit(healthy, 1).await;
    let parked = lag().await;
    assert_eq!((parked.events, parked.parked), (1, 1), "{parked:?}");
    assert_eq!(bank.progress.lag("balances", &["nothing"]).await.unwrap().events, 0);
    bank.close().await;
}
