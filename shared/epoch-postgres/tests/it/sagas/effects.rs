//! Effects and their answers: leases, idempotency keys, parking, and upgrades of stored states.

use std::sync::atomic::Ordering;

use epoch::saga::Saga;
use epoch_postgres::saga;

use super::shop::Shop;
use crate::fulfilment::{Effect, Fulfilment};

#[tokio::test(flavor = "multi_thread")]
async fn state_of_other_version_is_upgraded_or_refused() {
    let (shop, order, _) = Shop::with_order(10).await;
    shop.deliver(order).await;
    let pool = shop.process.store.pool();
    let written = "update sagas set state_version = $1, body = jsonb_set(body::jsonb, '{state}', \
         jsonb_build_object('id', $2::text))::json";
    // The saga can upgrade version 0, and does not know version 9.
    sqlx::query(written).bind(9).bind(order.to_string()).execute(pool).await.unwrap();
    assert_eq!(shop.process.effects.send_due().await.unwrap(), 0);
    let error: Option<String> = sqlx::query_scalar("select error from saga_effects").fetch_one(pool).await.unwrap();
    assert!(error.as_deref().is_some_and(|error| error.contains("can't be upgraded")), "{error:?}");
    sqlx::query(written).bind(0).bind(order.to_string()).execute(pool).await.unwrap();
    shop.pass(60_000);
    assert_eq!(shop.process.effects.send_due().await.unwrap(), 1);
    assert_eq!(shop.services.done(), [Effect::Charge { order, cents: 500 }]);
    let (version, step): (i32, String) =
        sqlx::query_as("select state_version, body->'state'->>'step' from sagas").fetch_one(pool).await.unwrap();
    assert_eq!((version, step.as_str()), (1, "Shipping"));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resent_effect_uses_the_same_idempotency_key() {
    let (shop, order, _) = Shop::with_order(3).await;
    shop.deliver(order).await;
    shop.services.silent.store(true, Ordering::SeqCst);
    tokio::select! {
        _ = shop.process.effects.send_due() => panic!("the effect must not be answered"),
        () = shop.services.received.notified() => {}
    }
    shop.services.silent.store(false, Ordering::SeqCst);
    let next = shop.another_process().await;
    assert_eq!(next.effects.send_due().await.unwrap(), 0, "the effect is leased");
    shop.pass(60_000);
    assert_eq!(next.effects.send_due().await.unwrap(), 1);
    let requested = shop.services.requested();
    assert_eq!((requested.len(), requested[0]), (2, requested[1]));
    assert_eq!(shop.services.done(), [Effect::Charge { order, cents: 500 }]);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unprocessable_answer_is_parked_and_released() {
    let (shop, order, _) = Shop::with_order(3).await;
    shop.deliver(order).await;
    assert_eq!(shop.process.effects.send_due().await.unwrap(), 1);
    // Damage the instance, so that the answer of the shipping can't be processed.
    let body: String =
        sqlx::query_scalar("select body::text from sagas").fetch_one(shop.process.store.pool()).await.unwrap();
    sqlx::query("update sagas set body = '{}'").execute(shop.process.store.pool()).await.unwrap();
    for _ in 0..5 {
        assert_eq!(shop.process.effects.send_due().await.unwrap(), 0);
        shop.pass(60_000);
    }
    let requested = shop.services.requested().len();
    assert_eq!(shop.process.effects.send_due().await.unwrap(), 0);
    assert_eq!(shop.services.requested().len(), requested, "a parked effect is not sent");
    let parked = shop.status(order).await.unwrap().parked.unwrap();
    assert!(parked.contains("can't be decoded"), "{parked}");
    sqlx::query("update sagas set body = $1::json").bind(body).execute(shop.process.store.pool()).await.unwrap();
    let released = saga::release(&shop.process.store, Fulfilment::NAME, &order.to_string()).await.unwrap();
    assert_eq!(released, 1);
    assert_eq!(shop.process.effects.send_due().await.unwrap(), 1);
    assert_eq!(shop.phase(order).await.as_deref(), Some("completed"));
    shop.close().await;
}
