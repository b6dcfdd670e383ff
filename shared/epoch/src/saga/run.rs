//! What one input leads to.
//!
//! The problem: refusals, undoing and completion nest, and a keeper of instances that got their order wrong would only
//! be found out when money is missing.
//!
//! The invariant: a [`Run`] does no I/O. It hands out one [`Work`] at a time; whoever drives it does that work in the
//! input's transaction and says what came of it. Its steps are numbered, so that the same input gives the same step ids
//! whenever it is tried again. It ends: an input that leads to more than [`MAX_ACTIONS`] actions is an error.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Action, ActionOf, Input, InputOf, InstanceOf, Saga, Undo};
use crate::timestamp::Timestamp;

/// The most actions of one input, what follows from refusals and undoing included.
pub const MAX_ACTIONS: u32 = 1_000;

/// The id of a step: the idempotency key of an effect. Made of the saga's name, what caused it, and its number, so that
/// the same step has the same id however often it is tried.
#[must_use]
pub fn step_id(saga: &str, cause: Uuid, number: u32) -> Uuid {
    Uuid::new_v5(&cause, format!("{saga}:{number}").as_bytes())
}

/// Where an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// On its way.
    #[default]
    Running,
    /// Undoing what it did.
    Compensating,
    /// Over; inputs mean nothing any more.
    Completed,
}

/// A step that was done and how to undo it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Undone<C, F> {
    /// The step.
    pub step: Uuid,
    /// How to undo it.
    pub undo: Undo<C, F>,
}

/// An undo that others are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Awaited {
    /// The effect's idempotency key.
    pub effect: Uuid,
    /// The step it undoes.
    pub step: Uuid,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance<S, C, F> {
    /// What it remembers.
    pub state: S,
    /// Where it is.
    pub phase: Phase,
    /// What to undo, last step last.
    pub undo: Vec<Undone<C, F>>,
    /// The undo that is an effect and under way.
    pub awaiting: Option<Awaited>,
    /// Whether it is over when everything is undone.
    pub completing: bool,
}

impl<S: Default, C, F> Default for Instance<S, C, F> {
    fn default() -> Self {
        Self { state: S::default(), phase: Phase::Running, undo: Vec::new(), awaiting: None, completing: false }
    }
}

/// What the driver of a run has to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Work<C, F, T> {
    /// Execute it, then say [`Run::done`] or [`Run::refused`].
    Command(C),
    /// Put it into the outbox.
    Send {
        /// Its idempotency key.
        id: Uuid,
        /// The effect.
        effect: F,
    },
    /// Keep a timer, instead of the instance's timer of the same value.
    SetTimer {
        /// Names this setting of it.
        id: Uuid,
        /// What to remind of.
        timer: T,
        /// When.
        at: Timestamp,
    },
    /// Drop a timer, if there is one.
    CancelTimer(T),
    /// Drop all timers of the instance.
    CancelTimers,
}

/// Why an input can't be taken.
#[derive(Debug, thiserror::Error)]
pub enum RunError<E: std::error::Error> {
    /// The saga says so.
    #[error(transparent)]
    Saga(E),
    /// It goes round in a circle.
    #[error("an input led to more than {MAX_ACTIONS} actions")]
    TooManyActions,
}

/// What [`Run::next_work`] gives.
pub type NextWork<S> = Result<Option<WorkOf<S>>, RunError<<S as Saga>::Error>>;

/// What a run of a saga of type `S` hands out.
pub type WorkOf<S> = Work<<S as Saga>::Command, <S as Saga>::Effect, <S as Saga>::Timer>;

/// A command that was handed out.
enum Asked<C, F> {
    Forward { id: Uuid, command: C, undo: Option<Undo<C, F>> },
    Backward(C),
}

/// An input on its way through an instance.
pub struct Run<'a, S: Saga> {
    saga: &'a S,
    instance: &'a mut InstanceOf<S>,
    cause: Uuid,
    at: Timestamp,
    actions: u32,
    queue: VecDeque<ActionOf<S>>,
    asked: Option<Asked<S::Command, S::Effect>>,
    acted: bool,
}

impl<'a, S: Saga> Run<'a, S> {
    /// A run of an input that is named `cause` (an event, a timer, an effect) and came at `at`.
    pub fn new(saga: &'a S, instance: &'a mut InstanceOf<S>, cause: Uuid, at: Timestamp) -> Self {
        Self { saga, instance, cause, at, actions: 0, queue: VecDeque::new(), asked: None, acted: false }
    }

    /// Whether the saga wanted anything done.
    #[must_use]
    pub fn acted(&self) -> bool {
        self.acted
    }

    /// An event came.
    ///
    /// # Errors
    /// [`RunError`]: undo everything.
    pub fn event(&mut self, event: S::Event) -> Result<(), RunError<S::Error>> {
        self.react(&Input::Event(event))
    }

    /// A timer was due.
    ///
    /// # Errors
    /// [`RunError`]: undo everything.
    pub fn timed_out(&mut self, timer: S::Timer) -> Result<(), RunError<S::Error>> {
        self.react(&Input::TimedOut(timer))
    }

    /// The effect `id` has happened.
    ///
    /// # Errors
    /// [`RunError`]: undo everything.
    pub fn delivered(&mut self, id: Uuid, effect: S::Effect, answer: S::Answer) -> Result<(), RunError<S::Error>> {
        if let Some(awaited) = self.instance.awaiting.take_if(|awaited| awaited.effect == id) {
            self.instance.undo.retain(|undone| undone.step != awaited.step);
            return Ok(());
        }
        self.react(&Input::Delivered { effect, answer })
    }

    /// The effect `id` was refused for good.
    ///
    /// # Errors
    /// [`RunError`]: undo everything.
    pub fn undeliverable(&mut self, id: Uuid, effect: S::Effect, reason: String) -> Result<(), RunError<S::Error>> {
        let compensating = self.instance.awaiting.is_some_and(|awaited| awaited.effect == id);
        if compensating {
            self.stop_compensating();
        } else {
            // One that is being undone already is asked to be undone; whoever refused it has nothing to do then.
            let undoing = self.instance.awaiting.map(|awaited| awaited.step);
            self.instance.undo.retain(|undone| undone.step != id || undoing == Some(id));
        }
        self.react(&Input::Undeliverable { effect, reason, compensating })
    }

    /// What is to be done next; `None` when the input has been taken.
    ///
    /// # Errors
    /// [`RunError`]: undo everything.
    pub fn next_work(&mut self) -> NextWork<S> {
        loop {
            if self.instance.phase == Phase::Completed {
                return Ok(None);
            }
            if let Some(action) = self.queue.pop_front() {
                if let Some(work) = self.begin(action)? {
                    return Ok(Some(work));
                }
                continue;
            }
            if self.instance.phase != Phase::Compensating || self.instance.awaiting.is_some() {
                return Ok(None);
            }
            match self.instance.undo.last().cloned() {
                Some(undone) => return self.begin_undo(undone).map(Some),
                None => {
                    self.instance.phase = Phase::Running;
                    self.react(&Input::Compensated)?;
                    if std::mem::take(&mut self.instance.completing) {
                        self.queue.push_back(Action::Complete);
                    }
                }
            }
        }
    }

    /// The command that was handed out is done.
    pub fn done(&mut self) {
        match self.asked.take() {
            Some(Asked::Forward { id, undo: Some(undo), .. }) => self.instance.undo.push(Undone { step: id, undo }),
            Some(Asked::Backward(_)) => drop(self.instance.undo.pop()),
            Some(Asked::Forward { undo: None, .. }) | None => {}
        }
    }

    /// The command that was handed out was refused.
    ///
    /// # Errors
    /// [`RunError`]: undo everything.
    pub fn refused(&mut self, refusal: S::Refusal) -> Result<(), RunError<S::Error>> {
        let (command, compensating) = match self.asked.take() {
            Some(Asked::Forward { command, .. }) => (command, false),
            Some(Asked::Backward(command)) => (command, true),
            None => return Ok(()),
        };
        if compensating {
            self.stop_compensating();
        }
        self.queue.clear();
        self.react(&Input::Refused { command, refusal, compensating })
    }

    fn react(&mut self, input: &InputOf<S>) -> Result<(), RunError<S::Error>> {
        if self.instance.phase == Phase::Completed {
            return Ok(());
        }
        let actions = self.saga.react(&mut self.instance.state, input, self.at).map_err(RunError::Saga)?;
        self.acted |= !actions.is_empty();
        self.queue.extend(actions);
        Ok(())
    }

    fn stop_compensating(&mut self) {
        self.instance.awaiting = None;
        self.instance.completing = false;
        self.instance.phase = Phase::Running;
    }

    fn begin(&mut self, action: ActionOf<S>) -> NextWork<S> {
        let id = self.number()?;
        Ok(match action {
            Action::Command { command, undo } => {
                self.asked = Some(Asked::Forward { id, command: command.clone(), undo });
                Some(Work::Command(command))
            }
            Action::Send { effect, undo } => {
                self.instance.undo.extend(undo.map(|undo| Undone { step: id, undo }));
                Some(Work::Send { id, effect })
            }
            Action::SetTimer { timer, at } => Some(Work::SetTimer { id, timer, at }),
            Action::CancelTimer(timer) => Some(Work::CancelTimer(timer)),
            Action::Compensate => {
                self.instance.phase = Phase::Compensating;
                None
            }
            Action::Complete if self.instance.phase == Phase::Compensating => {
                self.instance.completing = true;
                None
            }
            Action::Complete => {
                self.instance.phase = Phase::Completed;
                self.instance.undo.clear();
                self.queue.clear();
                Some(Work::CancelTimers)
            }
        })
    }

    fn begin_undo(&mut self, undone: Undone<S::Command, S::Effect>) -> Result<WorkOf<S>, RunError<S::Error>> {
        let id = self.number()?;
        Ok(match undone.undo {
            Undo::Command(command) => {
                self.asked = Some(Asked::Backward(command.clone()));
                Work::Command(command)
            }
            Undo::Send(effect) => {
                self.instance.awaiting = Some(Awaited { effect: id, step: undone.step });
                Work::Send { id, effect }
            }
        })
    }

    fn number(&mut self) -> Result<Uuid, RunError<S::Error>> {
        let number = self.actions;
        if number >= MAX_ACTIONS {
            return Err(RunError::TooManyActions);
        }
        self.actions += 1;
        Ok(step_id(S::NAME, self.cause, number))
    }
}
