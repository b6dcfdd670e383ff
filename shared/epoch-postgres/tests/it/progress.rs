//! Reading your own writes.

use std::{sync::Arc, time::Duration};

use epoch::{Position, Version, envelope::StreamKey, gate::Way, handler::Subscription, store::Streamer};
use epoch_postgres::{Progress, WaitError};
use futures::TryStreamExt;
use uuid::Uuid;

use crate::account::Bank;

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_for_its_version_and_is_never_stale_silently() {
    let bank = Bank::open().await;
    let id = Uuid::now_v7();
    let stream = StreamKey { aggregate: "account".into(), id };
    bank.deposit(id, 1).await;
    let early = bank.progress.wait_for("balances", &stream, Version::new(1), Duration::from_millis(60)).await;
    assert!(matches!(early, Err(WaitError::NotReached { reached: Version::ZERO, .. })));
    // One waits in the process that applies, one in another.
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
    bank.subscription().deliver(&events, Way::Bus).await.unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(bank.progress.version("balances", &stream).await.unwrap(), Version::new(1));
    assert_eq!(bank.progress.lag("balances", &["account"]).await.unwrap().events, 0);
    assert_eq!(bank.progress.lag("nobody", &["account"]).await.unwrap().events, 1);
    bank.close().await;
}
