//! Sagas on the fast path: decisions are made, and external effects never start.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use epoch::{
    Batch,
    gate::DeliverySource,
    handler::{EventHandler, Subscription},
};
use epoch_postgres::{HandlerError, PgSubscription, PgTx, Progress};
use uuid::Uuid;

use super::shop::Shop;

#[tokio::test(flavor = "multi_thread")]
async fn fast_path_decides_but_sends_no_effect() {
    let shop = Shop::open().await;
    let (order, item) = (Uuid::now_v7(), Uuid::now_v7());
    shop.fill(item, 10).await;
    let serving = tokio::spawn(shop.process.store.local().serve(Arc::new(shop.process.gate.clone())));
    // The command returns after the fast path has run.
    shop.place(order, item, 3).await;
    assert_eq!(shop.stock(item).await.available, 7);
    assert_eq!(shop.status(order).await.unwrap().effects, 1, "the effect is in the outbox");
    assert!(shop.services.requested().is_empty());
    serving.abort();
    shop.close().await;
}

/// A handler with external effects, which no transaction can roll back.
struct Outside(AtomicUsize);

#[async_trait]
impl EventHandler<PgTx> for Outside {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        "outside"
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &["order"]
    }

    fn allows_fast_path(&self) -> bool {
        false
    }

    async fn handle(&self, _: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        self.0.fetch_add(events.len(), Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gate_excludes_external_effects_from_fast_path() {
    let shop = Shop::open().await;
    let order = Uuid::now_v7();
    let outside = Arc::new(Outside(AtomicUsize::new(0)));
    let progress = Progress::new(shop.process.store.pool().clone());
    let gate = PgSubscription::new(Arc::clone(&outside) as _, shop.process.store.clone(), progress);
    let serving = tokio::spawn(shop.process.store.local().serve(Arc::new(gate.clone())));
    shop.place(order, Uuid::now_v7(), 3).await;
    assert_eq!(outside.0.load(Ordering::SeqCst), 0);
    gate.deliver(&shop.events(order).await, DeliverySource::Bus).await.unwrap();
    assert_eq!(outside.0.load(Ordering::SeqCst), 1);
    serving.abort();
    shop.close().await;
}
