//! What a saga does with each input, and that undoing runs backwards.

use epoch::{
    Timestamp,
    saga::{Phase, RunError},
    testkit::{Did, given, given_saga},
};
use uuid::Uuid;

use crate::fulfilment::{
    Command, Effect, Fulfilment, FulfilmentError, Order, OrderCommand, OrderError, OrderEvent, OrderPlaced,
    OrderWithdrawn, PAYMENT_MILLIS, Refusal, Stock, StockChanged, StockCommand, StockError, Timer,
};

const ORDER: Uuid = Uuid::from_u128(1);
const ITEM: Uuid = Uuid::from_u128(2);
const DUE: Timestamp = Timestamp::from_millis(PAYMENT_MILLIS);

type DidHere = Did<Command, Effect, Timer>;

fn placed(quantity: i64) -> (Uuid, OrderEvent) {
    (ORDER, OrderPlaced { item: ITEM, quantity, cents: 500 }.into())
}

fn stock(command: StockCommand) -> Command {
    Command::Stock(ITEM, command)
}

fn begun() -> [DidHere; 3] {
    [
        Did::Commanded(stock(StockCommand::Reserve { order: ORDER, quantity: 3 })),
        Did::Sent(Effect::Charge { order: ORDER, cents: 500 }),
        Did::Set(Timer::PaymentDue, DUE),
    ]
}

fn rejected(reason: &str) -> DidHere {
    Did::Commanded(Command::Order(ORDER, OrderCommand::Reject(reason.into())))
}

#[test]
fn an_order_is_paid_shipped_and_confirmed() {
    let saga = given_saga(Fulfilment)
        .when(placed(3))
        .then(begun())
        .when_delivered(1)
        .then([Did::Cancelled(Timer::PaymentDue), Did::Sent(Effect::Ship { order: ORDER })])
        .when_delivered(2)
        .then([Did::Commanded(Command::Order(ORDER, OrderCommand::Confirm)), Did::Completed]);
    assert_eq!((saga.phase(), saga.timers()), (Phase::Completed, [].as_slice()));
    saga.when(placed(3)).then_nothing();
}

#[test]
fn a_refusal_ends_the_list_and_nothing_is_undone_that_was_not_done() {
    let too_few = |command: &Command| match command {
        Command::Stock(..) => Err(Refusal::Stock(StockError::TooFew { available: 0, asked: 3 })),
        Command::Order(..) => Ok(()),
    };
    given_saga(Fulfilment).among(too_few).when(placed(3)).then([
        Did::Refused(stock(StockCommand::Reserve { order: ORDER, quantity: 3 })),
        Did::Cancelled(Timer::PaymentDue),
        rejected("out of stock"),
        Did::Completed,
    ]);
}

#[test]
fn a_time_out_undoes_last_to_first_and_waits_for_others() {
    let saga = given_saga(Fulfilment).when(placed(3)).then(begun()).when_timed_out(Timer::PaymentDue).then([
        Did::Cancelled(Timer::PaymentDue),
        rejected("not paid in time"),
        Did::Sent(Effect::Refund { order: ORDER }),
    ]);
    assert_eq!(saga.phase(), Phase::Compensating);
    // The charge went through after all; stock is only released when it has been given back.
    saga.when_delivered(1)
        .then_nothing()
        .when_delivered(2)
        .then([Did::Commanded(stock(StockCommand::Release { order: ORDER })), Did::Completed]);
}

#[test]
fn an_effect_refused_for_good_needs_no_undoing() {
    given_saga(Fulfilment).when(placed(3)).then(begun()).when_undeliverable("no money").then([
        Did::Cancelled(Timer::PaymentDue),
        rejected("not paid"),
        Did::Commanded(stock(StockCommand::Release { order: ORDER })),
        Did::Completed,
    ]);
}

#[test]
fn a_refused_undo_is_the_sagas_to_judge_and_stays_the_next_to_be_undone() {
    let never_released = |command: &Command| match command {
        Command::Stock(_, StockCommand::Release { .. }) => Err(Refusal::Stock(StockError::NotReserved(ORDER))),
        _ => Ok(()),
    };
    let saga = given_saga(Fulfilment)
        .among(never_released)
        .when(placed(3))
        .then(begun())
        .when((ORDER, OrderWithdrawn {}.into()))
        .then([Did::Cancelled(Timer::PaymentDue), Did::Sent(Effect::Refund { order: ORDER })])
        .when_delivered(1)
        .then_nothing()
        .when_delivered(2)
        .then_parked(|error| matches!(error, RunError::Saga(FulfilmentError::NotUndone(_))));
    assert_eq!(saga.phase(), Phase::Compensating);
}

#[test]
fn what_makes_no_sense_is_parked() {
    given_saga(Fulfilment)
        .when(placed(0))
        .then_parked(|error| matches!(error, RunError::Saga(FulfilmentError::Nothing)));
}

#[test]
fn a_customer_who_is_faster_than_the_time_out_gets_everything_undone_once() {
    let withdrawn = |command: &Command| match command {
        Command::Order(..) => Err(Refusal::Order(OrderError(Order::Withdrawn))),
        Command::Stock(..) => Ok(()),
    };
    given_saga(Fulfilment)
        .among(withdrawn)
        .when(placed(3))
        .then(begun())
        .when_timed_out(Timer::PaymentDue)
        .then([
            Did::Cancelled(Timer::PaymentDue),
            Did::Refused(Command::Order(ORDER, OrderCommand::Reject("not paid in time".into()))),
            Did::Sent(Effect::Refund { order: ORDER }),
        ])
        .when((ORDER, OrderWithdrawn {}.into()))
        .then_nothing()
        .when_delivered(1)
        .then_nothing()
        .when_delivered(2)
        .then([Did::Commanded(stock(StockCommand::Release { order: ORDER })), Did::Completed]);
}

#[test]
fn stock_is_reserved_and_released_for_one_order() {
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
    //! Any steps, some of them refused, then compensation: the undos are those of the steps that were done, last to
    //! first.

    use std::convert::Infallible;

    use epoch::{
        Envelope, Timestamp,
        event::CodecError,
        saga::{Action, ActionOf, Input, InputOf, Never, Phase, Saga, Undo},
        testkit::{Did, given_saga},
    };
    use proptest::prelude::*;

    #[derive(Debug, Clone, Copy)]
    enum Planned {
        Command { refused: bool },
        Effect { undeliverable: bool },
    }

    struct Steps(Vec<Planned>);

    /// Step n is `n`, its undo is `-n`.
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
                    Planned::Command { .. } => vec![Action::command(*n).undone_by(Undo::Command(-n))],
                    Planned::Effect { .. } => vec![Action::send(*n).undone_by(Undo::Send(-n))],
                },
                Input::Event(None) => vec![Action::Compensate, Action::Complete],
                _ => vec![],
            })
        }
    }

    fn planned() -> impl Strategy<Value = Planned> {
        prop_oneof![
            any::<bool>().prop_map(|refused| Planned::Command { refused }),
            any::<bool>().prop_map(|undeliverable| Planned::Effect { undeliverable }),
        ]
    }

    proptest! {
        #[test]
        fn runs_backwards_over_what_was_done(
            plan in prop::collection::vec(planned(), 0..12),
            delivered_before in 0_usize..12,
        ) {
            let refuses = plan.clone();
            let answer = move |n: &i64| match refuses.get(usize::try_from(*n - 1).unwrap_or(usize::MAX)) {
                Some(Planned::Command { refused: true }) => Err(()),
                _ => Ok(()),
            };
            let mut saga = given_saga(Steps(plan.clone())).among(answer);
            let mut sent = Vec::new();
            for n in (1_i64..).take(plan.len()) {
                saga = saga.when(Some(n)).then_whatever();
                if let Planned::Effect { undeliverable } = plan[usize::try_from(n).unwrap() - 1] {
                    sent.push((n, undeliverable));
                }
            }
            let mut sent = sent.into_iter();
            let mut gone = Vec::new();
            for (n, undeliverable) in sent.by_ref().take(delivered_before) {
                saga = if undeliverable {
                    gone.push(n);
                    saga.when_undeliverable("no").then_nothing()
                } else {
                    saga.when_delivered(()).then_nothing()
                };
            }
            // Those still in the outbox are delivered before their undo is: undoing waits for them, whatever becomes of
            // them.
            let numbered: Vec<_> = (1_i64..).zip(&plan).collect();
            let expected: Vec<i64> = numbered.into_iter().rev().filter_map(|(n, step)| match step {
                Planned::Command { refused: true } => None,
                _ if gone.contains(&n) => None,
                _ => Some(-n),
            }).collect();
            let late: Vec<_> = sent.collect();
            let mut undone = Vec::new();
            let mut note = |did: &[Did<i64, i64, Never>]| for did in did {
                match did {
                    Did::Commanded(n) | Did::Sent(n) => undone.push(*n),
                    Did::Completed | Did::Refused(_) | Did::Set(..) | Did::Cancelled(_) => {}
                }
            };
            saga = saga.when(None).then_seen(&mut note);
            for _ in late {
                saga = saga.when_delivered(()).then_seen(&mut note);
            }
            while saga.phase() == Phase::Compensating {
                saga = saga.when_delivered(()).then_seen(&mut note);
            }
            prop_assert_eq!(saga.phase(), Phase::Completed);
            prop_assert_eq!(undone, expected);
        }
    }
}
