//! The reaction model of a process.

use std::fmt::Debug;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{action::Action, input::Input, instance::Instance};
use crate::{
    event::{CodecError, envelope::Envelope},
    time::timestamp::Timestamp,
};

/// Data that is stored as JSON and compared.
pub trait Data: Debug + Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T: Debug + Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static> Data for T {}

/// The uninhabited type for sagas without effects, timers or commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Never {}

/// A long-running process with one instance per key.
pub trait Saga: Send + Sync + Sized + 'static {
    /// The saga's name in snake case. It names the subscription and is part of idempotency keys: never change it.
    const NAME: &'static str;
    /// The version of the stored JSON; see [`upgrade`](Self::upgrade).
    ///
    /// Increase it when the JSON of [`State`](Self::State), commands, effects or timers changes incompatibly.
    const STATE_VERSION: u32 = 1;
    /// The state of an instance, stored as JSON.
    type State: Default + Data;
    /// The events that the saga reacts to, as [`correlate`](Self::correlate) decodes them.
    type Event: Debug + Send + Sync;
    /// The commands to aggregates of the saga's own store.
    type Command: Data;
    /// The reasons of aggregates to reject a command.
    type Refusal: Debug + Send + Sync;
    /// The effects on other services.
    type Effect: Data;
    /// The answers to external effects.
    type Answer: Debug + Clone + Send + Sync;
    /// The timers. An instance has at most one timer of each value.
    type Timer: Data;
    /// The reasons to reject an input; the input is then parked without any effect.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Returns the names of the aggregates that the saga subscribes to.
    fn aggregates(&self) -> &'static [&'static str];

    /// Decodes an event and returns the key of its instance, or `None` to ignore the event.
    ///
    /// # Errors
    /// [`CodecError`] when the event cannot be decoded.
    fn correlate(&self, event: &Envelope) -> Result<Option<(String, Self::Event)>, CodecError>;

    /// Changes the state and returns the actions to execute. Pure: equal state, input and instant give equal results.
    ///
    /// `at` is when the event occurred, the timer was due, or the answer arrived. An instance starts with the default
    /// state at its first event. If the state then stays the default and there are no actions, no instance is stored.
    ///
    /// # Errors
    /// The saga's own error, for an input that an operator must look at.
    fn react(
        &self,
        state: &mut Self::State,
        input: &InputOf<Self>,
        at: Timestamp,
    ) -> Result<Vec<ActionOf<Self>>, Self::Error>;

    /// Converts a state stored with `version` to the current version, or returns `None` when that is impossible.
    #[must_use]
    fn upgrade(version: u32, state: serde_json::Value) -> Option<serde_json::Value> {
        let _ = (version, state);
        None
    }
}

/// The input of a saga of type `S`.
pub type InputOf<S> = Input<
    <S as Saga>::Event,
    <S as Saga>::Command,
    <S as Saga>::Refusal,
    <S as Saga>::Effect,
    <S as Saga>::Answer,
    <S as Saga>::Timer,
>;

/// The action of a saga of type `S`.
pub type ActionOf<S> = Action<<S as Saga>::Command, <S as Saga>::Effect, <S as Saga>::Timer>;

/// The instance of a saga of type `S`.
pub type InstanceOf<S> = Instance<<S as Saga>::State, <S as Saga>::Command, <S as Saga>::Effect>;
