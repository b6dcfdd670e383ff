//! Runs with killed and concurrent processes have the same result as a sequential run of the model.

use std::collections::HashMap;

use epoch::{CommandContext, clock::Clock, gate::DeliverySource, handler::Subscription};
use proptest::{prelude::*, test_runner::TestRunner};
use uuid::Uuid;

use super::{
    model::Model,
    shop::{Process, ServiceState, Shop, killed},
};
use crate::fulfilment::{Effect, OrderCommand, OrderPlaced, PAYMENT_MILLIS};

/// The next step of a run.
#[derive(Debug, Clone)]
enum Step {
    Place {
        order: usize,
        quantity: i64,
    },
    Withdraw {
        order: usize,
    },
    Deliver {
        order: usize,
        source: DeliverySource,
    },
    /// Time passes, and due timers fire.
    FireTimers {
        millis: i64,
    },
    /// The first effect of each order is sent to services in this state.
    SendEffects {
        state: ServiceState,
    },
}

const ORDERS: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let order = 0..ORDERS;
    let source = prop_oneof![Just(DeliverySource::FastPath), Just(DeliverySource::Bus), Just(DeliverySource::Replay)];
    let state = prop_oneof![3 => Just(ServiceState::Accepting), 1 => Just(ServiceState::Rejecting), 1 => Just(ServiceState::Unavailable)];
    prop_oneof![
        2 => (order.clone(), 1..5_i64).prop_map(|(order, quantity)| Step::Place { order, quantity }),
        1 => order.clone().prop_map(|order| Step::Withdraw { order }),
        4 => (order, source).prop_map(|(order, source)| Step::Deliver { order, source }),
        1 => (0..2 * PAYMENT_MILLIS).prop_map(|millis| Step::FireTimers { millis }),
        3 => state.prop_map(|state| Step::SendEffects { state }),
    ]
}

/// Runs `work` until it finishes. First kills it after each number of polls in `kills`, in alternating processes.
async fn survive<T>(kills: &[u32], processes: &[&Process], mut work: impl AsyncFnMut(&Process) -> T) -> T {
    for (polls, process) in kills.iter().zip(processes.iter().cycle()) {
        if let Some(result) = killed(*polls, work(process)).await {
            return result;
        }
    }
    work(processes[0]).await
}

async fn apply(shop: &Shop, processes: &[&Process], model: &mut Model, step: &Step, kills: &[u32]) {
    match step {
        Step::Place { order, quantity } => {
            let id = model.orders[*order].id;
            let placed = OrderPlaced { item: ITEM, quantity: *quantity, cents: 500 };
            let command = OrderCommand::Place(placed);
            let _ = shop.process.orders.execute(id, &command, &CommandContext::at(shop.clock.now())).await;
            model.command(*order, &command);
        }
        Step::Withdraw { order } => {
            let context = CommandContext::at(shop.clock.now());
            let _ = shop.process.orders.execute(model.orders[*order].id, &OrderCommand::Withdraw, &context).await;
            model.command(*order, &OrderCommand::Withdraw);
        }
        Step::Deliver { order, source } => {
            let events = shop.events(model.orders[*order].id).await;
            survive(kills, processes, async |process: &Process| process.gate.deliver(&events, *source).await.unwrap())
                .await;
            model.deliver(*order);
        }
        Step::FireTimers { millis } => {
            shop.pass(*millis);
            survive(kills, processes, async |process: &Process| process.timers.fire_due().await.unwrap()).await;
            // A killed transaction may hold its locks until the server notices.
            settle(shop, "select count(*) from saga_timers where try_at <= $1", async || {
                shop.process.timers.fire_due().await.unwrap();
            })
            .await;
            model.fire_timers(shop.clock.now().as_millis());
        }
        Step::SendEffects { state } => send(shop, processes, model, *state, kills).await,
    }
}

async fn settle(shop: &Shop, query: &'static str, mut again: impl AsyncFnMut()) {
    loop {
        let query = sqlx::query_scalar::<_, i64>(query).bind(shop.clock.now().as_millis());
        if query.fetch_one(shop.process.store.pool()).await.unwrap() == 0 {
            return;
        }
        again().await;
    }
}

/// Sends the first effect of each order, as the model does.
async fn send(shop: &Shop, processes: &[&Process], model: &mut Model, state: ServiceState, kills: &[u32]) {
    let pool = shop.process.store.pool();
    let first = "select count(*) from (select distinct instance from saga_effects) i";
    // A rejected refund is parked, which another test covers.
    let refunds: i64 = sqlx::query_scalar("select count(*) from saga_effects where effect like '%Refund%'")
        .fetch_one(pool)
        .await
        .unwrap();
    if state == ServiceState::Rejecting && refunds > 0 {
        return;
    }
    shop.services.set(state);
    let heads: Vec<Uuid> = sqlx::query_scalar(
        "select e.id from saga_effects e where e.number = \
         (select min(b.number) from saga_effects b where b.instance = e.instance)",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let instances: i64 = sqlx::query_scalar(first).fetch_one(pool).await.unwrap();
    assert_eq!(heads.len() as i64, instances);
    if state != ServiceState::Unavailable {
        // Parks all other effects, so that each order's next effect waits for the next round.
        sqlx::query("update saga_effects set parked_at = 1 where id <> all($1)")
            .bind(&heads)
            .execute(pool)
            .await
            .unwrap();
    }
    let remaining = "select count(*) from saga_effects where id = any($1)";
    if state == ServiceState::Unavailable {
        survive(kills, processes, async |process: &Process| process.effects.send_due().await.unwrap()).await;
    } else {
        let mut kills = kills;
        loop {
            let left: i64 = sqlx::query_scalar(remaining).bind(&heads).fetch_one(pool).await.unwrap();
            if left == 0 {
                break;
            }
            // Expires the leases of killed workers and the waits between attempts.
            sqlx::query("update saga_effects set try_at = 0 where id = any($1)")
                .bind(&heads)
                .execute(pool)
                .await
                .unwrap();
            sqlx::query("update saga_effects set try_at = 9e15 where id <> all($1)")
                .bind(&heads)
                .execute(pool)
                .await
                .unwrap();
            let (now, later) = kills.split_at(kills.len().min(1));
            kills = later;
            match now {
                [polls] => drop(killed(*polls, processes[kills.len() % processes.len()].effects.send_due()).await),
                _ => drop(shop.process.effects.send_due().await.unwrap()),
            }
        }
    }
    sqlx::query("update saga_effects set parked_at = null, try_at = 0").execute(pool).await.unwrap();
    model.send_effects(state);
}

const ITEM: Uuid = Uuid::from_u128(77);

#[test]
fn killed_and_concurrent_runs_match_a_sequential_run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    let killed_step = (step(), prop::collection::vec(0..60_u32, 0..3));
    let strategy = (prop::collection::vec(killed_step, 1..25), 3..9_i64);
    let mut runner = TestRunner::new(ProptestConfig { cases: 24, max_shrink_iters: 40, ..ProptestConfig::default() });
    let result = runner.run(&strategy, |(steps, stock)| {
        runtime.block_on(async {
            let shop = Shop::open().await;
            let other = shop.another_process().await;
            let processes = [&shop.process, &other];
            let ids: Vec<Uuid> = (0..ORDERS).map(|_| Uuid::now_v7()).collect();
            shop.fill(ITEM, stock).await;
            let mut model = Model::new(&ids, stock);
            for (step, kills) in &steps {
                apply(&shop, &processes, &mut model, step, kills).await;
            }
            let done: HashMap<Uuid, Vec<Effect>> = ids.iter().map(|id| (*id, effects_of(&shop, *id))).collect();
            let expected = model.stock.lock().unwrap().clone();
            let actual = shop.stock(ITEM).await;
            prop_assert_eq!(&actual, &expected);
            for order_model in &model.orders {
                let names: Vec<String> = {
                    let state = order_model.state.lock().unwrap();
                    state.1.iter().map(|(event, _)| epoch::DomainEvent::name(event).to_owned()).collect()
                };
                prop_assert_eq!(shop.names(order_model.id).await, names);
                prop_assert_eq!(&done[&order_model.id], &order_model.done);
                let saga = order_model.saga.as_ref().unwrap();
                if let Some(status) = shop.status(order_model.id).await {
                    let phase = format!("{:?}", saga.phase()).to_lowercase();
                    prop_assert_eq!(status.phase, phase);
                    prop_assert_eq!(status.timers, saga.timers().len() as i64);
                    prop_assert_eq!(status.effects, saga.outbox().count() as i64);
                } else {
                    prop_assert_eq!(order_model.delivered, 0);
                }
            }
            shop.close().await;
            Ok(())
        })
    });
    result.unwrap();
}

fn effects_of(shop: &Shop, order: Uuid) -> Vec<Effect> {
    let mut done = shop.services.done();
    done.retain(|effect| match effect {
        Effect::Charge { order: of, .. } | Effect::Refund { order: of } | Effect::Ship { order: of } => *of == order,
    });
    done
}
