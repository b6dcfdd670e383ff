//! The stored state of one process.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::action::Undo;

/// The phase of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Reacting to inputs.
    #[default]
    Running,
    /// Undoing its steps.
    Compensating,
    /// Finished; further inputs are ignored.
    Completed,
}

/// A completed step and how to undo it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UndoStep<C, F> {
    /// The step's id.
    pub step: Uuid,
    /// How to undo the step.
    pub undo: Undo<C, F>,
}

/// An undo that is an effect in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingUndo {
    /// The effect's idempotency key.
    pub effect: Uuid,
    /// The id of the step that it undoes.
    pub step: Uuid,
}

/// One process of a saga.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance<S, C, F> {
    /// The saga's own state.
    pub state: S,
    /// Whether the process is running, compensating or completed.
    pub phase: Phase,
    /// The steps to undo, the latest last.
    pub undo: Vec<UndoStep<C, F>>,
    /// The undo that compensation waits for.
    pub awaiting: Option<PendingUndo>,
    /// Whether the process completes after the last undo.
    pub completing: bool,
}

impl<S: Default, C, F> Default for Instance<S, C, F> {
    fn default() -> Self {
        Self { state: S::default(), phase: Phase::Running, undo: Vec::new(), awaiting: None, completing: false }
    }
}
