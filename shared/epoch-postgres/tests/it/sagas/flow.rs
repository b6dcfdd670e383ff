//! The flow of an order: confirmation, rejection, compensation.

use epoch::{gate::DeliverySource, handler::Subscription, retry::RetryPolicy};
use uuid::Uuid;

use super::shop::{ServiceState, Shop};
use crate::fulfilment::{Effect, PAYMENT_MILLIS, Stock};

#[tokio::test(flavor = "multi_thread")]
async fn order_is_confirmed_after_payment_and_shipping() {
    let (shop, order, item) = Shop::with_order(10).await;
    shop.deliver(order).await;
    assert_eq!(shop.services.done(), [], "the gate sends nothing");
    assert_eq!(shop.process.effects.send_due().await.unwrap(), 1);
    assert_eq!(shop.process.effects.send_due().await.unwrap(), 1);
    assert_eq!(shop.names(order).await, ["OrderPlaced", "OrderConfirmed"]);
    assert_eq!(shop.services.done(), [Effect::Charge { order, cents: 500 }, Effect::Ship { order }]);
    assert_eq!(shop.stock(item).await.available, 7);
    shop.deliver(order).await;
    let status = shop.status(order).await.unwrap();
    assert_eq!((status.phase.as_str(), status.timers, status.effects), ("completed", 0, 0));
    let caused = &shop.events(order).await[1].metadata;
    assert_eq!(caused.correlation_id, shop.events(order).await[0].metadata.correlation_id);
    assert_eq!(caused.actor.as_deref(), Some("saga:fulfilment"));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rejection_is_an_input_and_parks_nothing() {
    let (shop, order, item) = Shop::with_order(2).await;
    shop.deliver(order).await;
    shop.deliver(order).await;
    assert_eq!(shop.names(order).await, ["OrderPlaced", "OrderRejected"]);
    assert_eq!(shop.stock(item).await, Stock { available: 2, ..Stock::default() });
    assert_eq!(epoch_postgres::dead_letters::list(&shop.process.gate, 10).await.unwrap(), []);
    assert_eq!(shop.process.effects.send_due().await.unwrap(), 0);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unprocessable_event_is_parked_without_an_instance() {
    let shop = Shop::open().await;
    let order = Uuid::now_v7();
    shop.place(order, Uuid::now_v7(), 0).await;
    let gate = shop.process.gate.clone().with_retry(RetryPolicy { attempts: 1, ..RetryPolicy::HANDLER });
    gate.deliver(&shop.events(order).await, DeliverySource::Bus).await.unwrap();
    let letters = epoch_postgres::dead_letters::list(&gate, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].error.as_deref(), Some("order quantity is zero"));
    assert_eq!(shop.status(order).await, None);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timeout_compensates_in_reverse_order() {
    let (shop, order, item) = Shop::with_order(3).await;
    shop.deliver(order).await;
    shop.services.set(ServiceState::Unavailable);
    assert_eq!(shop.process.effects.send_due().await.unwrap(), 0);
    assert_eq!(shop.process.timers.fire_due().await.unwrap(), 0, "not yet due");
    shop.pass(PAYMENT_MILLIS);
    assert_eq!(shop.process.timers.fire_due().await.unwrap(), 1);
    assert_eq!(shop.process.timers.fire_due().await.unwrap(), 0);
    assert_eq!(shop.names(order).await, ["OrderPlaced", "OrderRejected"]);
    assert_eq!(shop.phase(order).await.as_deref(), Some("compensating"));
    shop.services.set(ServiceState::Accepting);
    assert_eq!(shop.process.effects.send_due().await.unwrap(), 1);
    assert_eq!(shop.stock(item).await.available, 0, "the stock is released only after the refund");
    assert_eq!(shop.process.effects.send_due().await.unwrap(), 1);
    assert_eq!(shop.stock(item).await.available, 3);
    assert_eq!(shop.services.done(), [Effect::Charge { order, cents: 500 }, Effect::Refund { order }]);
    assert_eq!(shop.phase(order).await.as_deref(), Some("completed"));
    shop.close().await;
}
