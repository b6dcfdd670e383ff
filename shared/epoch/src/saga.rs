//! Sagas: processes that span transactions, aggregates and services.
//!
//! An order is paid in one service and shipped by another; each step may be rejected, time out or fail half-way, and
//! completed steps must then be undone, although the process may crash at any moment. Invariants:
//! - A [`Saga`] only reacts, as an aggregate only decides: it is synchronous, does no I/O and returns [`Action`]s. An
//!   external effect therefore never starts while an event is being delivered, least of all on the fast path. It starts
//!   after the instance and its outbox are committed.
//! - One input changes the instance's state, its timers, its outbox and the commanded aggregates atomically.
//! - [`Run`] alone decides the consequences of an input, so in-memory and durable implementations behave identically.
//!
//! **Order.** The actions of a list are executed one after the other. When an aggregate rejects a command, the rest of
//! the list is skipped and the saga receives [`Input::Refused`]. The effects of one instance are delivered in the order
//! of their actions.
//!
//! **Compensation.** A command or an effect may carry its [`Undo`]. It is stored with the instance when the step is
//! done; for an effect, when it is put into the outbox, because a failed delivery may still have reached its target.
//! [`Action::Compensate`] undoes the steps in reverse order; an undo that is an effect must be delivered before the
//! next one starts. After the last undo the saga receives [`Input::Compensated`]. A rejected undo stops compensation
//! and stays the next step to undo; the saga is notified and may set a timer, compensate again, or complete.

mod action;
mod input;
mod instance;
mod run;
#[allow(clippy::module_inception, reason = "the file is named after its main type")]
mod saga;

pub use action::{Action, Undo};
pub use input::Input;
pub use instance::{Instance, PendingUndo, Phase, UndoStep};
pub use run::{MAX_ACTIONS, NextWork, Run, RunError, Work, WorkOf, step_id};
pub use saga::{ActionOf, Data, InputOf, InstanceOf, Never, Saga};
