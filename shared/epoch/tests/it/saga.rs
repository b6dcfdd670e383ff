//! Reactions of a saga to all kinds of inputs, and compensation in reverse order.

use epoch::{
    Timestamp,
    saga::{Phase, RunError},
    testkit::{SagaStep, given, given_saga},
};
use uuid::Uuid;

use crate::fulfilment::{
    Command, Effect, Fulfilment, FulfilmentError, Order, OrderCommand, OrderError, OrderEvent, OrderPlaced,
    OrderWithdrawn, PAYMENT_MILLIS, Refusal, Stock, StockChanged, StockCommand, StockError, Timer,
};

const ORDER: Uuid = Uuid::from_u128(1);
const ITEM: Uuid = Uuid::from_u128(2);
const DUE: Timestamp = Timestamp::from_millis(PAYMENT_MILLIS);

type Step = SagaStep<Command, Effect, Timer>;

fn placed(quantity: i64) -> (Uuid, OrderEvent) {
    (ORDER, OrderPlaced { item: ITEM, quantity, cents: 500 }.into())
}

fn stock(command: StockCommand) -> Command {
    Command::Stock(ITEM, command)
}

fn begun() -> [Step; 3] {
    [
        SagaStep::Commanded(stock(StockCommand::Reserve { order: ORDER, quantity: 3 })),
        SagaStep::Sent(Effect::Charge { order: ORDER, cents: 500 }),
        SagaStep::Set(Timer::PaymentDue, DUE),
    ]
}

fn rejected(reason: &str) -> Step {
    SagaStep::Commanded(Command::Order(ORDER, OrderCommand::Reject(reason.into())))
}

#[test]
fn order_is_paid_shipped_and_confirmed() {
    let saga = given_saga(Fulfilment)
        .when(placed(3))
        .then(begun())
        .when_delivered(1)
        .then([SagaStep::Cancelled(Timer::PaymentDue), SagaStep::Sent(Effect::Ship { order: ORDER })])
        .when_delivered(2)
        .then([SagaStep::Commanded(Command::Order(ORDER, OrderCommand::Confirm)), SagaStep::Completed]);
    assert_eq!((saga.phase(), saga.timers()), (Phase::Completed, [].as_slice()));
    saga.when(placed(3)).then_nothing();
}

#[test]
fn rejection_skips_remaining_actions_without_undo() {
    let too_few = |command: &Command| match command {
        Command::Stock(..) => Err(Refusal::Stock(StockError::TooFew { available: 0, requested: 3 })),
        Command::Order(..) => Ok(()),
    };
    given_saga(Fulfilment).with_aggregates(too_few).when(placed(3)).then([
        SagaStep::Refused(stock(StockCommand::Reserve { order: ORDER, quantity: 3 })),
        SagaStep::Cancelled(Timer::PaymentDue),
        rejected("out of stock"),
        SagaStep::Completed,
    ]);
}

#[test]
fn timeout_undoes_in_reverse_and_waits_for_effects() {
    let saga = given_saga(Fulfilment).when(placed(3)).then(begun()).when_timed_out(Timer::PaymentDue).then([
        SagaStep::Cancelled(Timer::PaymentDue),
        rejected("not paid in time"),
        SagaStep::Sent(Effect::Refund { order: ORDER }),
    ]);
    assert_eq!(saga.phase(), Phase::Compensating);
    // The charge is delivered after the timeout. The stock is released after the refund.
    saga.when_delivered(1)
        .then_nothing()
        .when_delivered(2)
        .then([SagaStep::Commanded(stock(StockCommand::Release { order: ORDER })), SagaStep::Completed]);
}

#[test]
fn undeliverable_effect_is_not_undone() {
    given_saga(Fulfilment).when(placed(3)).then(begun()).when_undeliverable("no money").then([
        SagaStep::Cancelled(Timer::PaymentDue),
        rejected("not paid"),
        SagaStep::Commanded(stock(StockCommand::Release { order: ORDER })),
        SagaStep::Completed,
    ]);
}

#[test]
fn rejected_undo_is_reported_and_stays_next() {
    let never_released = |command: &Command| match command {
        Command::Stock(_, StockCommand::Release { .. }) => Err(Refusal::Stock(StockError::NotReserved(ORDER))),
        _ => Ok(()),
    };
    let saga = given_saga(Fulfilment)
        .with_aggregates(never_released)
        .when(placed(3))
        .then(begun())
        .when((ORDER, OrderWithdrawn {}.into()))
        .then([SagaStep::Cancelled(Timer::PaymentDue), SagaStep::Sent(Effect::Refund { order: ORDER })])
        .when_delivered(1)
        .then_nothing()
        .when_delivered(2)
        .then_parked(|error| matches!(error, RunError::Saga(FulfilmentError::NotUndone(_))));
    assert_eq!(saga.phase(), Phase::Compensating);
}

#[test]
fn invalid_input_is_parked() {
    given_saga(Fulfilment)
        .when(placed(0))
        .then_parked(|error| matches!(error, RunError::Saga(FulfilmentError::Nothing)));
}

#[test]
fn withdrawal_during_timeout_undoes_once() {
    let withdrawn = |command: &Command| match command {
        Command::Order(..) => Err(Refusal::Order(OrderError(Order::Withdrawn))),
        Command::Stock(..) => Ok(()),
    };
    given_saga(Fulfilment)
        .with_aggregates(withdrawn)
        .when(placed(3))
        .then(begun())
        .when_timed_out(Timer::PaymentDue)
        .then([
            SagaStep::Cancelled(Timer::PaymentDue),
            SagaStep::Refused(Command::Order(ORDER, OrderCommand::Reject("not paid in time".into()))),
            SagaStep::Sent(Effect::Refund { order: ORDER }),
        ])
        .when((ORDER, OrderWithdrawn {}.into()))
        .then_nothing()
        .when_delivered(1)
        .then_nothing()
        .when_delivered(2)
        .then([SagaStep::Commanded(stock(StockCommand::Release { order: ORDER })), SagaStep::Completed]);
}

#[test]
fn stock_is_reserved_and_released_per_order() {
    let change = |order, delta| StockChanged { order, delta }.into();
    let reserve = StockCommand::Reserve { order: ORDER, quantity: 3 };
    let stock = given::<Stock>([])
        .when(&StockCommand::Fill(5))
        .then([change(None, 5)])
        .when(&reserve)
        .then([change(Some(ORDER), -3)]);
    assert_eq!((stock.state().available, stock.state().reserved[&ORDER]), (2, 3));
    let stock = stock.when(&StockCommand::Release { order: ORDER }).then([change(Some(ORDER), 3)]);
    assert_eq!(*stock.state(), Stock { available: 5, ..Stock::default() });
    stock.when(&StockCommand::Release { order: ORDER }).then_rejected(|error| *error == StockError::NotReserved(ORDER));
    let (_, event) = placed(1);
    given::<Order>([event]).when(&OrderCommand::Withdraw).then([OrderWithdrawn {}.into()]);
}

mod undoing {
    //! Random steps, some of them rejected, then compensation: completed steps are undone in reverse order.

    use std::convert::Infallible;

    use epoch::{
        Envelope, Timestamp,
        event::CodecError,
        saga::{Action, ActionOf, Input, InputOf, Never, Phase, Saga, Undo},
        testkit::{SagaStep, given_saga},
    };
    use proptest::prelude::*;

    #[derive(Debug, Clone, Copy)]
    enum PlannedStep {
        Command { refused: bool },
        Effect { undeliverable: bool },
    }

    struct Steps(Vec<PlannedStep>);

    /// Step n is the command or effect `n`; its undo is `-n`.
    impl Saga for Steps {
        const NAME: &'static str = "steps";
        type State = ();
        type Event = Option<i64>;
        type Command = i64;
        type Refusal = ();
        type Effect = i64;
        type Answer = ();
        type Timer = Never;
        type Error = Infallible;

        fn aggregates(&self) -> &'static [&'static str] {
            &[]
        }

        fn correlate(&self, _: &Envelope) -> Result<Option<(String, Self::Event)>, CodecError> {
            Ok(None)
        }

        fn react(&self, (): &mut (), input: &InputOf<Self>, _: Timestamp) -> Result<Vec<ActionOf<Self>>, Infallible> {
            Ok(match input {
                Input::Event(Some(n)) => match self.0[usize::try_from(*n).unwrap() - 1] {
                    PlannedStep::Command { .. } => vec![Action::command(*n).undone_by(Undo::Command(-n))],
                    PlannedStep::Effect { .. } => vec![Action::send(*n).undone_by(Undo::Send(-n))],
                },
                Input::Event(None) => vec![Action::Compensate, Action::Complete],
                _ => vec![],
            })
        }
    }

    fn planned() -> impl Strategy<Value = PlannedStep> {
        prop_oneof![
            any::<bool>().prop_map(|refused| PlannedStep::Command { refused }),
            any::<bool>().prop_map(|undeliverable| PlannedStep::Effect { undeliverable }),
        ]
    }

    proptest! {
        #[test]
        fn compensation_undoes_completed_steps_in_reverse(
            plan in prop::collection::vec(planned(), 0..12),
            delivered_before in 0_usize..12,
        ) {
            let planned_steps = plan.clone();
            let answer = move |n: &i64| match planned_steps.get(usize::try_from(*n - 1).unwrap_or(usize::MAX)) {
                Some(PlannedStep::Command { refused: true }) => Err(()),
                _ => Ok(()),
            };
            let mut saga = given_saga(Steps(plan.clone())).with_aggregates(answer);
            let mut sent = Vec::new();
            for n in (1_i64..).take(plan.len()) {
                saga = saga.when(Some(n)).then_anything();
                if let PlannedStep::Effect { undeliverable } = plan[usize::try_from(n).unwrap() - 1] {
                    sent.push((n, undeliverable));
                }
            }
            let mut sent = sent.into_iter();
            let mut undeliverable_steps = Vec::new();
            for (n, undeliverable) in sent.by_ref().take(delivered_before) {
                saga = if undeliverable {
                    undeliverable_steps.push(n);
                    saga.when_undeliverable("no").then_nothing()
                } else {
                    saga.when_delivered(()).then_nothing()
                };
            }
            // Effects still in the outbox are delivered before their undo, which waits for them. Their result does not
            // matter.
            let numbered: Vec<_> = (1_i64..).zip(&plan).collect();
            let expected: Vec<i64> = numbered.into_iter().rev().filter_map(|(n, step)| match step {
                PlannedStep::Command { refused: true } => None,
                _ if undeliverable_steps.contains(&n) => None,
                _ => Some(-n),
            }).collect();
            let late: Vec<_> = sent.collect();
            let mut undone = Vec::new();
            let mut record = |steps: &[SagaStep<i64, i64, Never>]| for step in steps {
                match step {
                    SagaStep::Commanded(n) | SagaStep::Sent(n) => undone.push(*n),
                    SagaStep::Completed | SagaStep::Refused(_) | SagaStep::Set(..) | SagaStep::Cancelled(_) => {}
                }
            };
            saga = saga.when(None).then_inspect(&mut record);
            for _ in late {
                saga = saga.when_delivered(()).then_inspect(&mut record);
            }
            while saga.phase() == Phase::Compensating {
                saga = saga.when_delivered(()).then_inspect(&mut record);
            }
            prop_assert_eq!(saga.phase(), Phase::Completed);
            prop_assert_eq!(undone, expected);
        }
    }
}
