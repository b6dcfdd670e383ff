//! The consequences of one input.
//!
//! Rejections, compensation and completion nest, and a wrong order costs money. A [`Run`] does no I/O: it hands out one
//! [`Work`] item at a time; its driver executes the item in the input's transaction and reports the result. Steps are
//! numbered, so that the same input has the same step ids whenever it is retried. A run always terminates: more than
//! [`MAX_ACTIONS`] actions are an error.

use std::collections::VecDeque;

use uuid::Uuid;

use super::{
    action::{Action, Undo},
    input::Input,
    instance::{PendingUndo, Phase, UndoStep},
    saga::{ActionOf, InputOf, InstanceOf, Saga},
};
use crate::time::timestamp::Timestamp;

/// The maximum number of actions of one input, including its rejections and compensation.
pub const MAX_ACTIONS: u32 = 1_000;

/// Returns the id of a step, which is the idempotency key of an effect.
///
/// It is derived from the saga's name, the step's cause and its number, so that a retried step has the same id.
#[must_use]
pub fn step_id(saga: &str, cause: Uuid, number: u32) -> Uuid {
    Uuid::new_v5(&cause, format!("{saga}:{number}").as_bytes())
}

/// The next task of a run's driver.
#[derive(Debug, Clone, PartialEq)]
pub enum Work<C, F, T> {
    /// Execute the command, then call [`Run::done`] or [`Run::refused`].
    Command(C),
    /// Put the effect into the outbox.
    Send {
        /// The effect's idempotency key.
        id: Uuid,
        /// The effect to put into the outbox.
        effect: F,
    },
    /// Store a timer; replaces the instance's timer of the same value.
    SetTimer {
        /// The id of this setting of the timer.
        id: Uuid,
        /// The timer's value.
        timer: T,
        /// When the timer is due.
        at: Timestamp,
    },
    /// Delete a timer if it is set.
    CancelTimer(T),
    /// Delete all timers of the instance.
    CancelTimers,
}

/// Why an input failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError<E: std::error::Error> {
    /// The saga rejected the input.
    #[error(transparent)]
    Saga(E),
    /// The input led to too many actions, probably in a cycle.
    #[error("input led to more than {MAX_ACTIONS} actions")]
    TooManyActions,
}

/// The result of [`Run::next_work`].
pub type NextWork<S> = Result<Option<WorkOf<S>>, RunError<<S as Saga>::Error>>;

/// The work of a saga of type `S`.
pub type WorkOf<S> = Work<<S as Saga>::Command, <S as Saga>::Effect, <S as Saga>::Timer>;

/// A command without a result yet.
enum PendingCommand<C, F> {
    Forward { id: Uuid, command: C, undo: Option<Undo<C, F>> },
    Undo(C),
}

/// The processing of one input by one instance.
pub struct Run<'a, S: Saga> {
    saga: &'a S,
    instance: &'a mut InstanceOf<S>,
    cause: Uuid,
    at: Timestamp,
    actions: u32,
    queue: VecDeque<ActionOf<S>>,
    pending: Option<PendingCommand<S::Command, S::Effect>>,
    acted: bool,
}

impl<'a, S: Saga> Run<'a, S> {
    /// Creates the run of an input at `at`; `cause` is the id of its event, timer or effect.
    pub fn new(saga: &'a S, instance: &'a mut InstanceOf<S>, cause: Uuid, at: Timestamp) -> Self {
        Self { saga, instance, cause, at, actions: 0, queue: VecDeque::new(), pending: None, acted: false }
    }

    /// Returns whether the saga returned any action.
    #[must_use]
    pub fn acted(&self) -> bool {
        self.acted
    }

    /// Processes a delivered event.
    ///
    /// # Errors
    /// [`RunError`]; the driver must roll the input's transaction back.
    pub fn event(&mut self, event: S::Event) -> Result<(), RunError<S::Error>> {
        self.react(&Input::Event(event))
    }

    /// Processes a due timer.
    ///
    /// # Errors
    /// [`RunError`]; the driver must roll the input's transaction back.
    pub fn timed_out(&mut self, timer: S::Timer) -> Result<(), RunError<S::Error>> {
        self.react(&Input::TimedOut(timer))
    }

    /// Processes the delivery of the effect `id`.
    ///
    /// # Errors
    /// [`RunError`]; the driver must roll the input's transaction back.
    pub fn delivered(&mut self, id: Uuid, effect: S::Effect, answer: S::Answer) -> Result<(), RunError<S::Error>> {
        if let Some(pending) = self.instance.awaiting.take_if(|pending| pending.effect == id) {
            self.instance.undo.retain(|step| step.step != pending.step);
            return Ok(());
        }
        self.react(&Input::Delivered { effect, answer })
    }

    /// Processes the permanent rejection of the effect `id`.
    ///
    /// # Errors
    /// [`RunError`]; the driver must roll the input's transaction back.
    pub fn undeliverable(&mut self, id: Uuid, effect: S::Effect, reason: String) -> Result<(), RunError<S::Error>> {
        let compensating = self.instance.awaiting.is_some_and(|pending| pending.effect == id);
        if compensating {
            self.stop_compensating();
        } else {
            // The effect did not happen, so drop its undo, unless that undo is already in the outbox.
            let undoing = self.instance.awaiting.map(|pending| pending.step);
            self.instance.undo.retain(|step| step.step != id || undoing == Some(id));
        }
        self.react(&Input::Undeliverable { effect, reason, compensating })
    }

    /// Returns the next task, or `None` when the input is fully processed.
    ///
    /// # Errors
    /// [`RunError`]; the driver must roll the input's transaction back.
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
                Some(step) => return self.begin_undo(step).map(Some),
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

    /// Reports that the pending command was executed.
    pub fn done(&mut self) {
        match self.pending.take() {
            Some(PendingCommand::Forward { id, undo: Some(undo), .. }) => {
                self.instance.undo.push(UndoStep { step: id, undo })
            }
            Some(PendingCommand::Undo(_)) => drop(self.instance.undo.pop()),
            Some(PendingCommand::Forward { undo: None, .. }) | None => {}
        }
    }

    /// Reports that the pending command was rejected.
    ///
    /// # Errors
    /// [`RunError`]; the driver must roll the input's transaction back.
    pub fn refused(&mut self, refusal: S::Refusal) -> Result<(), RunError<S::Error>> {
        let (command, compensating) = match self.pending.take() {
            Some(PendingCommand::Forward { command, .. }) => (command, false),
            Some(PendingCommand::Undo(command)) => (command, true),
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
                self.pending = Some(PendingCommand::Forward { id, command: command.clone(), undo });
                Some(Work::Command(command))
            }
            Action::Send { effect, undo } => {
                self.instance.undo.extend(undo.map(|undo| UndoStep { step: id, undo }));
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

    fn begin_undo(&mut self, step: UndoStep<S::Command, S::Effect>) -> Result<WorkOf<S>, RunError<S::Error>> {
        let id = self.number()?;
        Ok(match step.undo {
            Undo::Command(command) => {
                self.pending = Some(PendingCommand::Undo(command.clone()));
                Work::Command(command)
            }
            Undo::Send(effect) => {
                self.instance.awaiting = Some(PendingUndo { effect: id, step: step.step });
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
