//! An order from placement to confirmation: stock in the same store, payment and shipping as external effects.

use std::collections::BTreeMap;

use epoch::{
    Aggregate, Envelope, Timestamp,
    event::CodecError,
    saga::{Action, ActionOf, Input, InputOf, Saga, Undo},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The payment timeout: 15 minutes.
pub(crate) const PAYMENT_MILLIS: i64 = 15 * 60 * 1_000;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct OrderPlaced {
    pub(crate) item: Uuid,
    pub(crate) quantity: i64,
    pub(crate) cents: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct OrderWithdrawn {}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct OrderConfirmed {}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct OrderRejected {
    pub(crate) reason: String,
}

const PLACED: &str = r#"{"type": "record", "name": "OrderPlaced", "fields": [
    {"name": "item", "type": {"type": "string", "logicalType": "uuid"}},
    {"name": "quantity", "type": "long"}, {"name": "cents", "type": "long"}]}"#;
const WITHDRAWN: &str = r#"{"type": "record", "name": "OrderWithdrawn", "fields": []}"#;
const CONFIRMED: &str = r#"{"type": "record", "name": "OrderConfirmed", "fields": []}"#;
const REJECTED: &str =
    r#"{"type": "record", "name": "OrderRejected", "fields": [{"name": "reason", "type": "string"}]}"#;

epoch::events! {
    #[allow(clippy::enum_variant_names, reason = "events are named in full")]
    pub(crate) enum OrderEvent {
        OrderPlaced = [PLACED],
        OrderWithdrawn = [WITHDRAWN],
        OrderConfirmed = [CONFIRMED],
        OrderRejected = [REJECTED],
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum OrderCommand {
    Place(OrderPlaced),
    Withdraw,
    Confirm,
    Reject(String),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    #[default]
    New,
    Open,
    Withdrawn,
    Confirmed,
    Rejected,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("invalid command for an order that is {0:?}")]
pub(crate) struct OrderError(pub(crate) Order);

impl Aggregate for Order {
    const NAME: &'static str = "order";
    type Command = OrderCommand;
    type Event = OrderEvent;
    type Error = OrderError;

    fn decide(&self, command: &OrderCommand) -> Result<Vec<OrderEvent>, OrderError> {
        match (self, command) {
            (Self::New, OrderCommand::Place(placed)) => Ok(vec![placed.clone().into()]),
            (Self::Open, OrderCommand::Withdraw) => Ok(vec![OrderWithdrawn {}.into()]),
            (Self::Open, OrderCommand::Confirm) => Ok(vec![OrderConfirmed {}.into()]),
            (Self::Open, OrderCommand::Reject(reason)) => Ok(vec![OrderRejected { reason: reason.clone() }.into()]),
            _ => Err(OrderError(*self)),
        }
    }

    fn evolve(&mut self, event: &OrderEvent) {
        *self = match event {
            OrderEvent::OrderPlaced(_) => Self::Open,
            OrderEvent::OrderWithdrawn(_) => Self::Withdrawn,
            OrderEvent::OrderConfirmed(_) => Self::Confirmed,
            OrderEvent::OrderRejected(_) => Self::Rejected,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StockChanged {
    pub(crate) order: Option<Uuid>,
    pub(crate) delta: i64,
}

const CHANGED: &str = r#"{"type": "record", "name": "StockChanged", "fields": [
    {"name": "order", "type": ["null", {"type": "string", "logicalType": "uuid"}], "default": null},
    {"name": "delta", "type": "long"}]}"#;

epoch::events! { pub(crate) enum StockEvent { StockChanged = [CHANGED] } }

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum StockCommand {
    Fill(i64),
    Reserve { order: Uuid, quantity: i64 },
    Release { order: Uuid },
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stock {
    pub(crate) available: i64,
    pub(crate) reserved: BTreeMap<Uuid, i64>,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum StockError {
    #[error("{requested} requested, {available} available")]
    TooFew { available: i64, requested: i64 },
    #[error("no reservation for order {0}")]
    NotReserved(Uuid),
}

impl Aggregate for Stock {
    const NAME: &'static str = "stock";
    type Command = StockCommand;
    type Event = StockEvent;
    type Error = StockError;

    fn decide(&self, command: &StockCommand) -> Result<Vec<StockEvent>, StockError> {
        match command {
            StockCommand::Fill(quantity) => Ok(vec![StockChanged { order: None, delta: *quantity }.into()]),
            StockCommand::Reserve { quantity, .. } if *quantity > self.available => {
                Err(StockError::TooFew { available: self.available, requested: *quantity })
            }
            StockCommand::Reserve { order, quantity } => {
                Ok(vec![StockChanged { order: Some(*order), delta: -quantity }.into()])
            }
            StockCommand::Release { order } => match self.reserved.get(order) {
                Some(quantity) => Ok(vec![StockChanged { order: Some(*order), delta: *quantity }.into()]),
                None => Err(StockError::NotReserved(*order)),
            },
        }
    }

    fn evolve(&mut self, event: &StockEvent) {
        let StockEvent::StockChanged(changed) = event;
        self.available += changed.delta;
        let Some(order) = changed.order else { return };
        let reserved = self.reserved.entry(order).or_default();
        *reserved -= changed.delta;
        if *reserved == 0 {
            self.reserved.remove(&order);
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Command {
    Order(Uuid, OrderCommand),
    Stock(Uuid, StockCommand),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Refusal {
    Order(OrderError),
    Stock(StockError),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Effect {
    Charge { order: Uuid, cents: i64 },
    Refund { order: Uuid },
    Ship { order: Uuid },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Timer {
    PaymentDue,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    #[default]
    NotBegun,
    Paying,
    Shipping,
    Undoing,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) order: Uuid,
    pub(crate) step: Step,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum FulfilmentError {
    #[error("order quantity is zero")]
    Nothing,
    #[error("undoing failed: {0}")]
    NotUndone(String),
}

/// Reserves stock, charges, ships and confirms. Compensates when a step fails or the customer withdraws before
/// shipping.
pub(crate) struct Fulfilment;

impl Fulfilment {
    fn give_up(progress: &mut Progress, reason: Option<&str>) -> Vec<ActionOf<Self>> {
        progress.step = Step::Undoing;
        let mut actions = vec![Action::CancelTimer(Timer::PaymentDue), Action::Compensate, Action::Complete];
        // Last: the order rejects it after a withdrawal, and a rejection skips the remaining actions.
        if let Some(reason) = reason {
            let command = Command::Order(progress.order, OrderCommand::Reject(reason.to_owned()));
            actions.push(Action::command(command));
        }
        actions
    }
}

impl Saga for Fulfilment {
    const NAME: &'static str = "fulfilment";
    type State = Progress;
    type Event = (Uuid, OrderEvent);
    type Command = Command;
    type Refusal = Refusal;
    type Effect = Effect;
    type Answer = u64;
    type Timer = Timer;
    type Error = FulfilmentError;

    fn aggregates(&self) -> &'static [&'static str] {
        &["order"]
    }

    /// Version 0 had only the order's id and no step but `Paying`.
    fn upgrade(version: u32, state: serde_json::Value) -> Option<serde_json::Value> {
        match version {
            0 => Some(serde_json::json!({ "order": state.get("id")?, "step": "Paying" })),
            _ => None,
        }
    }

    fn correlate(&self, event: &Envelope) -> Result<Option<(String, Self::Event)>, CodecError> {
        let order = event.aggregate_id;
        Ok(Some((order.to_string(), (order, event.decode()?))))
    }

    fn react(
        &self,
        state: &mut Progress,
        input: &InputOf<Self>,
        at: Timestamp,
    ) -> Result<Vec<ActionOf<Self>>, FulfilmentError> {
        match input {
            Input::Event((_, OrderEvent::OrderPlaced(placed))) if placed.quantity == 0 => Err(FulfilmentError::Nothing),
            Input::Event((order, OrderEvent::OrderPlaced(placed))) => {
                *state = Progress { order: *order, step: Step::Paying };
                let reserve = StockCommand::Reserve { order: *order, quantity: placed.quantity };
                let release = StockCommand::Release { order: *order };
                let due = Timestamp::from_millis(at.as_millis() + PAYMENT_MILLIS);
                Ok(vec![
                    Action::command(Command::Stock(placed.item, reserve))
                        .undone_by(Undo::Command(Command::Stock(placed.item, release))),
                    Action::send(Effect::Charge { order: *order, cents: placed.cents })
                        .undone_by(Undo::Send(Effect::Refund { order: *order })),
                    Action::SetTimer { timer: Timer::PaymentDue, at: due },
                ])
            }
            Input::Event((_, OrderEvent::OrderWithdrawn(_))) if state.step == Step::Paying => {
                Ok(Self::give_up(state, None))
            }
            Input::Refused { command: Command::Stock(..), compensating: false, .. } => {
                Ok(Self::give_up(state, Some("out of stock")))
            }
            Input::Delivered { effect: Effect::Charge { order, .. }, .. } if state.step == Step::Paying => {
                state.step = Step::Shipping;
                Ok(vec![Action::CancelTimer(Timer::PaymentDue), Action::send(Effect::Ship { order: *order })])
            }
            Input::Undeliverable { effect: Effect::Charge { .. }, .. } if state.step == Step::Paying => {
                Ok(Self::give_up(state, Some("not paid")))
            }
            Input::TimedOut(Timer::PaymentDue) => Ok(Self::give_up(state, Some("not paid in time"))),
            Input::Delivered { effect: Effect::Ship { order }, .. } => {
                Ok(vec![Action::command(Command::Order(*order, OrderCommand::Confirm)), Action::Complete])
            }
            Input::Undeliverable { effect: Effect::Ship { .. }, .. } => Ok(Self::give_up(state, Some("not shipped"))),
            Input::Undeliverable { reason, compensating: true, .. } => Err(FulfilmentError::NotUndone(reason.clone())),
            Input::Refused { refusal, compensating: true, .. } => {
                Err(FulfilmentError::NotUndone(format!("{refusal:?}")))
            }
            // The customer withdrew during shipping, too late to cancel.
            Input::Refused { command: Command::Order(_, OrderCommand::Confirm), .. } => Ok(vec![Action::Complete]),
            Input::Refused { command: Command::Order(..), .. }
            | Input::Event(_)
            | Input::Delivered { .. }
            | Input::Undeliverable { .. }
            | Input::Compensated => Ok(vec![]),
        }
    }
}
