//! A sequential model of the shop in memory.

use std::sync::{Arc, Mutex};

use epoch::{
    Aggregate, Timestamp,
    testkit::{GivenSaga, given_saga},
};
use uuid::Uuid;

use super::shop::{START, ServiceState};
use crate::fulfilment::{Command, Effect, Fulfilment, Order, OrderCommand, OrderEvent, Refusal, Stock};

/// A sequential run in memory, without any kill.
pub(super) struct Model {
    pub(super) stock: Arc<Mutex<Stock>>,
    pub(super) orders: Vec<OrderModel>,
    pub(super) now: i64,
}

pub(super) struct OrderModel {
    pub(super) id: Uuid,
    pub(super) state: OrderState,
    pub(super) delivered: usize,
    pub(super) saga: Option<GivenSaga<Fulfilment>>,
    pub(super) done: Vec<Effect>,
}

impl Model {
    pub(super) fn new(ids: &[Uuid], stock: i64) -> Self {
        let stock = Arc::new(Mutex::new(Stock { available: stock, ..Stock::default() }));
        let orders = ids.iter().map(|id| {
            let state = Arc::new(Mutex::new((Order::default(), Vec::new())));
            let saga = given_saga(Fulfilment).with_aggregates(aggregates(Arc::clone(&stock), Arc::clone(&state)));
            OrderModel { id: *id, state, delivered: 0, saga: Some(saga), done: Vec::new() }
        });
        Self { orders: orders.collect(), stock, now: START }
    }

    pub(super) fn command(&self, order: usize, command: &OrderCommand) {
        let _ = decide_order(&self.orders[order].state, command, self.now);
    }

    pub(super) fn deliver(&mut self, order: usize) {
        let order_model = &mut self.orders[order];
        let known = order_model.state.lock().unwrap().1.clone();
        for (event, at) in &known[order_model.delivered..] {
            let saga = order_model.saga.take().unwrap().at(Timestamp::from_millis(*at));
            order_model.saga = Some(saga.when((order_model.id, event.clone())).then_anything());
        }
        order_model.delivered = known.len();
    }

    pub(super) fn fire_timers(&mut self, now: i64) {
        self.now = now;
        for order_model in &mut self.orders {
            let saga = order_model.saga.take().unwrap();
            let due = saga.timers().iter().find(|(_, at)| at.as_millis() <= now).map(|(timer, _)| timer.clone());
            order_model.saga = Some(match due {
                Some(timer) => saga.when_timed_out(timer).then_anything(),
                None => saga,
            });
        }
    }

    /// Sends the first effect of each order.
    pub(super) fn send_effects(&mut self, state: ServiceState) {
        for order_model in &mut self.orders {
            let saga = order_model.saga.take().unwrap();
            let first = saga.outbox().next().cloned();
            order_model.saga = Some(match (first, state) {
                (Some(effect), ServiceState::Accepting) => {
                    order_model.done.push(effect);
                    saga.when_delivered(1).then_anything()
                }
                // A rejected compensation is parked, which another test covers.
                (Some(effect), ServiceState::Rejecting) if !matches!(effect, Effect::Refund { .. }) => {
                    saga.when_undeliverable("no").then_anything()
                }
                _ => saga,
            });
        }
    }
}

pub(super) type OrderState = Arc<Mutex<(Order, Vec<(OrderEvent, i64)>)>>;

pub(super) fn decide_order(state: &OrderState, command: &OrderCommand, now: i64) -> Result<(), Refusal> {
    let mut state = state.lock().unwrap();
    for event in state.0.decide(command).map_err(Refusal::Order)? {
        state.0.evolve(&event);
        state.1.push((event, now));
    }
    Ok(())
}

pub(super) fn aggregates(
    stock: Arc<Mutex<Stock>>,
    order: OrderState,
) -> impl FnMut(&Command) -> Result<(), Refusal> + Send {
    move |command| match command {
        Command::Order(_, command) => decide_order(&order, command, START),
        Command::Stock(_, command) => {
            let mut stock = stock.lock().unwrap();
            for event in stock.decide(command).map_err(Refusal::Stock)? {
                stock.evolve(&event);
            }
            Ok(())
        }
    }
}
