//! Several processes and running workers.

use epoch::{gate::DeliverySource, handler::Subscription};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::shop::{ServiceState, Shop};
use crate::fulfilment::{Effect, PAYMENT_MILLIS};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_process_each_input_once() {
    let shop = Shop::open().await;
    let other = shop.another_process().await;
    let item = Uuid::now_v7();
    let orders: Vec<Uuid> = (0..40).map(|_| Uuid::now_v7()).collect();
    shop.fill(item, 30).await;
    for order in &orders {
        shop.place(*order, item, 1).await;
    }
    let mut events = Vec::new();
    for order in &orders {
        events.extend(shop.events(*order).await);
    }
    // Stock for 30 orders; 10 are rejected. No payment is made.
    let events = &events;
    let deliveries = [&shop.process, &other].map(|process| async move {
        for piece in events.chunks(7) {
            process.gate.deliver(piece, DeliverySource::Bus).await.unwrap();
        }
    });
    futures::future::join_all(deliveries).await;
    assert_eq!(shop.stock(item).await.available, 0);
    shop.services.set(ServiceState::Unavailable);
    shop.pass(PAYMENT_MILLIS);
    let rounds = [&shop.process, &other, &shop.process, &other].map(|process| process.timers.fire_due());
    let fired: usize = futures::future::try_join_all(rounds).await.unwrap().into_iter().sum();
    // A worker skips instances locked by another one, so a further round may be needed.
    let rest = shop.process.timers.fire_due().await.unwrap();
    assert_eq!(fired + rest, 30);
    shop.services.set(ServiceState::Accepting);
    let mut answered = 0;
    while answered < 60 {
        let rounds = [&shop.process, &other].map(|process| process.effects.send_due());
        answered += futures::future::try_join_all(rounds).await.unwrap().into_iter().sum::<usize>();
        shop.pass(60_000);
    }
    let stock = shop.stock(item).await;
    assert_eq!((stock.available, stock.reserved.len()), (30, 0));
    let done = shop.services.done();
    for order in &orders {
        let of_order = |effect: &&Effect| match effect {
            Effect::Charge { order: of, .. } | Effect::Refund { order: of } | Effect::Ship { order: of } => of == order,
        };
        let sent: Vec<_> = done.iter().filter(of_order).cloned().collect();
        let all = [Effect::Charge { order: *order, cents: 500 }, Effect::Refund { order: *order }];
        assert!(sent.is_empty() || sent == all, "{sent:?}");
        assert_eq!(shop.names(*order).await, ["OrderPlaced", "OrderRejected"]);
        assert_eq!(shop.phase(*order).await.as_deref(), Some("completed"));
    }
    assert_eq!(done.len(), 60);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_process_inputs_until_stopped() {
    let (shop, order, _) = Shop::with_order(3).await;
    let other = shop.another_process().await;
    let stop = CancellationToken::new();
    let workers = [tokio::spawn(other.timers.run(stop.clone())), tokio::spawn(other.effects.run(stop.clone()))];
    shop.deliver(order).await;
    while shop.phase(order).await.as_deref() != Some("completed") {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    for worker in workers {
        worker.await.unwrap();
    }
    assert_eq!(shop.names(order).await, ["OrderPlaced", "OrderConfirmed"]);
    shop.close().await;
}
