//! The inputs of a saga.

/// An input that a saga reacts to.
#[derive(Debug, Clone, PartialEq)]
pub enum Input<E, C, R, F, A, T> {
    /// An event was delivered.
    Event(E),
    /// A timer is due.
    TimedOut(T),
    /// An aggregate rejected a command. The rest of the command's action list was skipped.
    Refused {
        /// The rejected command.
        command: C,
        /// The aggregate's reason.
        refusal: R,
        /// Whether the command was an undo; compensation then stopped before it.
        compensating: bool,
    },
    /// An effect that is not an undo was delivered.
    Delivered {
        /// The delivered effect.
        effect: F,
        /// The receiver's answer.
        answer: A,
    },
    /// An effect was rejected permanently. Its undo, if any, is dropped.
    Undeliverable {
        /// The rejected effect.
        effect: F,
        /// The receiver's reason.
        reason: String,
        /// Whether the effect was an undo; compensation then stopped before it.
        compensating: bool,
    },
    /// All steps have been undone.
    Compensated,
}
