//! Sagas on Postgres: instances, timers, an outbox of effects, and the workers of both.
//!
//! The rules are those of [`epoch::saga`]. On Postgres:
//! - An input is an event, a timer, or the answer to an effect. The input, the instance's new state, its timers, its
//!   outbox
//!   and the events of the commanded aggregates commit together or not at all. Each input is processed once: an event by
//!   the gate's cursor, a timer and an answer by deleting their row.
//! - The inputs of one instance are processed one after the other, in any number of processes: each locks the
//!   instance's row
//!   first.
//! - Effects start only in [`SagaEffects`], which reads committed rows. The handler has no access to the sender, so it
//!   may
//!   run on the fast path.
//!
//! A rejection by an aggregate is an input. An error of the saga itself, or a command that can't be executed for
//! another reason, parks its cause: an event as a dead letter with its aggregate, a timer or an answer in its own row
//! ([`release`]).

mod backlog;
mod claim;
mod commands;
mod effect_outbox;
mod effect_worker;
mod instances;
mod pg_saga;
mod status;
mod timer_rows;
mod timer_worker;

pub use backlog::{SagaBacklog, backlog, report_backlog};
pub use commands::{CommandOutcome, SagaCommands};
pub use effect_worker::{EffectSender, SagaEffects, SendError};
pub use pg_saga::PgSaga;
pub use status::{SagaStatus, release, status};
pub use timer_worker::SagaTimers;
