//! Sagas on Postgres.

mod backlog;
mod effects;
mod instances;
mod pg_saga;
mod timers;

pub use backlog::{SagaBacklog, backlog, report_backlog};
pub use effects::{EffectSender, SagaEffects, SendError};
pub use pg_saga::{Commanded, PgSaga, SagaCommands, SagaStatus, release, status};
pub use timers::SagaTimers;
