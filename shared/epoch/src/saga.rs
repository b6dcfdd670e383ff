//! Sagas: processes that take longer than a transaction and touch more than one aggregate or service.
//!
//! The problem: an order is paid here, sent there, and each of it may be refused, be late, or fail half-way; what was
//! done before must then be undone, though the process may die at any moment.
//!
//! The invariants:
//! - a [`Saga`] only reacts, like an aggregate only decides: it is synchronous and has nothing to do I/O with. What it
//!   wants done it says as [`Action`]s. An effect on others can therefore never start while an event is being taken,
//!   least of all on the local way; it starts when whoever keeps the instance has committed it to the outbox.
//! - an input changes the instance's state, its timers, its outbox and the aggregates it commands together or not at
//!   all;
//! - what an input leads to is decided by [`Run`] alone, so that every keeper of instances, the one in memory and the
//!   durable one, comes to the same result.
//!
//! **Order.** The actions of a list are done one after the other. A command that its aggregate refuses ends the list:
//! the saga hears [`Input::Refused`] and goes on from there. Effects of one instance are delivered in the order they
//! were asked for.
//!
//! **Compensation.** A command or effect may carry its [`Undo`]. It is kept with the instance when the step was done
//! (an effect: when it was put into the outbox, since nobody can know how far it got). [`Action::Compensate`] undoes
//! the steps last to first; an undo that is an effect is waited for before the next one starts. When all is undone the
//! saga hears [`Input::Compensated`]. An undo that is refused stops there and stays the next to be undone; the saga
//! hears of it and may set a timer, compensate again, or complete.

mod run;

use std::fmt::Debug;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use run::{Awaited, Instance, MAX_ACTIONS, NextWork, Phase, Run, RunError, Undone, Work, WorkOf, step_id};

use crate::{envelope::Envelope, event::CodecError, timestamp::Timestamp};

/// What can be kept as JSON and compared.
pub trait Data: Debug + Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T: Debug + Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static> Data for T {}

/// For sagas that have no effects, no timers or no commands: there is no value of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Never {}

/// A process with a state, an instance of it for each key.
pub trait Saga: Send + Sync + Sized + 'static {
    /// The saga's name, in snake case; it also names its subscription. Part of idempotency keys: never change it.
    const NAME: &'static str;
    /// Grows when the JSON of [`State`](Self::State), commands, effects or timers changes incompatibly; see
    /// [`upgrade`](Self::upgrade).
    const STATE_VERSION: u32 = 1;
    /// What an instance remembers; kept as JSON.
    type State: Default + Data;
    /// What it reacts to, as [`correlate`](Self::correlate) reads it from envelopes.
    type Event: Debug + Send + Sync;
    /// What it asks aggregates of its own store.
    type Command: Data;
    /// Why an aggregate says no.
    type Refusal: Debug + Send + Sync;
    /// What it asks others outside the store.
    type Effect: Data;
    /// What others answer.
    type Answer: Debug + Clone + Send + Sync;
    /// What it can be reminded of. An instance has at most one timer of each value.
    type Timer: Data;
    /// Why it can't take an input; then the input is parked, and nothing of it has happened.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The aggregates it listens to.
    fn aggregates(&self) -> &'static [&'static str];

    /// Which instance an event is for, and what it means to it; `None` when it means nothing.
    ///
    /// # Errors
    /// [`CodecError`] when the event can't be read.
    fn correlate(&self, event: &Envelope) -> Result<Option<(String, Self::Event)>, CodecError>;

    /// Changes the state and says what is to be done. Pure: the same state, input and instant give the same answer.
    ///
    /// `at` is when the event occurred, when the timer was due, or when the answer came. An instance begins with the
    /// default state when its first event comes; when it does nothing then and the state stays as it is, it hasn't
    /// begun.
    ///
    /// # Errors
    /// The saga's own: the input makes no sense and somebody must look at it.
    fn react(
        &self,
        state: &mut Self::State,
        input: &InputOf<Self>,
        at: Timestamp,
    ) -> Result<Vec<ActionOf<Self>>, Self::Error>;

    /// Today's state from one that was written as `version`; `None` when it can't be made.
    #[must_use]
    fn upgrade(version: u32, state: serde_json::Value) -> Option<serde_json::Value> {
        let _ = (version, state);
        None
    }
}

/// What a saga of type `S` hears.
pub type InputOf<S> = Input<
    <S as Saga>::Event,
    <S as Saga>::Command,
    <S as Saga>::Refusal,
    <S as Saga>::Effect,
    <S as Saga>::Answer,
    <S as Saga>::Timer,
>;

/// What a saga of type `S` says.
pub type ActionOf<S> = Action<<S as Saga>::Command, <S as Saga>::Effect, <S as Saga>::Timer>;

/// An instance of a saga of type `S`.
pub type InstanceOf<S> = Instance<<S as Saga>::State, <S as Saga>::Command, <S as Saga>::Effect>;

/// What a saga hears.
#[derive(Debug, Clone, PartialEq)]
pub enum Input<E, C, R, F, A, T> {
    /// Something happened.
    Event(E),
    /// A timer is due.
    TimedOut(T),
    /// An aggregate refused a command. What stood behind it in its list was not done.
    Refused {
        /// What was asked.
        command: C,
        /// Why not.
        refusal: R,
        /// Whether it was to undo something; then compensation has stopped before it.
        compensating: bool,
    },
    /// An effect that isn't an undo has happened.
    Delivered {
        /// Which.
        effect: F,
        /// What came back.
        answer: A,
    },
    /// An effect was refused for good. Its undo, if it had one, is forgotten.
    Undeliverable {
        /// Which.
        effect: F,
        /// What was said.
        reason: String,
        /// Whether it was to undo something; then compensation has stopped before it.
        compensating: bool,
    },
    /// Everything that was done is undone.
    Compensated,
}

/// What a saga wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action<C, F, T> {
    /// Command an aggregate of the same store: exactly once, in the transaction of the input.
    Command {
        /// The command.
        command: C,
        /// How to undo it.
        undo: Option<Undo<C, F>>,
    },
    /// Have an effect on others: at least once, after the transaction, under one idempotency key.
    Send {
        /// The effect.
        effect: F,
        /// How to undo it.
        undo: Option<Undo<C, F>>,
    },
    /// Be reminded; replaces the instance's timer of the same value.
    SetTimer {
        /// What of.
        timer: T,
        /// When.
        at: Timestamp,
    },
    /// Don't be reminded.
    CancelTimer(T),
    /// Undo what was done, last to first, when this list is done.
    Compensate,
    /// The process is over: timers are cancelled and inputs that still come mean nothing. While compensating, it is
    /// over when all is undone. Effects in the outbox are still delivered.
    Complete,
}

impl<C, F, T> Action<C, F, T> {
    /// A command that can't or needn't be undone.
    pub fn command(command: C) -> Self {
        Self::Command { command, undo: None }
    }

    /// An effect that can't or needn't be undone.
    pub fn send(effect: F) -> Self {
        Self::Send { effect, undo: None }
    }

    /// The same step with how to undo it; means nothing for other actions.
    #[must_use]
    pub fn undone_by(self, how: Undo<C, F>) -> Self {
        match self {
            Self::Command { command, .. } => Self::Command { command, undo: Some(how) },
            Self::Send { effect, .. } => Self::Send { effect, undo: Some(how) },
            other => other,
        }
    }
}

/// How a step is undone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Undo<C, F> {
    /// By a command to an aggregate of the same store.
    Command(C),
    /// By an effect on others.
    Send(F),
}
