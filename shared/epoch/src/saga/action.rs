//! The actions of a saga.

use serde::{Deserialize, Serialize};

use crate::time::timestamp::Timestamp;

/// An action that a saga requests.
#[derive(Debug, Clone, PartialEq)]
pub enum Action<C, F, T> {
    /// Command an aggregate of the same store: exactly once, in the transaction of the input.
    Command {
        /// The command to execute.
        command: C,
        /// How to undo the command.
        undo: Option<Undo<C, F>>,
    },
    /// Send an external effect: at least once, after the transaction, under one idempotency key.
    Send {
        /// The effect to send.
        effect: F,
        /// How to undo the effect.
        undo: Option<Undo<C, F>>,
    },
    /// Set a timer; replaces the instance's timer of the same value.
    SetTimer {
        /// The timer's value.
        timer: T,
        /// When the timer is due.
        at: Timestamp,
    },
    /// Cancel the timer with this key, if it is pending.
    CancelTimer(T),
    /// Undo all completed steps in reverse order, after this list of actions.
    Compensate,
    /// Complete the process: timers are cancelled and later inputs are ignored.
    ///
    /// While compensating, the process completes after the last undo. Effects in the outbox are still delivered.
    Complete,
}

impl<C, F, T> Action<C, F, T> {
    /// Creates a command without an undo.
    pub fn command(command: C) -> Self {
        Self::Command { command, undo: None }
    }

    /// Creates an effect without an undo.
    pub fn send(effect: F) -> Self {
        Self::Send { effect, undo: None }
    }

    /// Sets the undo of a command or an effect; other actions are returned unchanged.
    #[must_use]
    pub fn undone_by(self, undo: Undo<C, F>) -> Self {
        match self {
            Self::Command { command, .. } => Self::Command { command, undo: Some(undo) },
            Self::Send { effect, .. } => Self::Send { effect, undo: Some(undo) },
            other => other,
        }
    }
}

/// How a step is undone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Undo<C, F> {
    /// By a command to an aggregate of the same store.
    Command(C),
    /// By an external effect.
    Send(F),
}
