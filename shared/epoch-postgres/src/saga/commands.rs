//! Executing the commands of a saga on aggregates.

use async_trait::async_trait;
use epoch::{CommandContext, ExecuteError, ExecutionOutcome, saga::Saga};

use crate::{delivery::error::HandlerError, transaction::pg_tx::PgTx};

/// The outcome of a saga's command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandOutcome<R> {
    /// The aggregate accepted the command, or had nothing to change.
    Done,
    /// The aggregate rejected the command.
    Refused(R),
}

impl<R> CommandOutcome<R> {
    /// Converts the result of [`PgTx::execute`]; `refusal` converts the aggregate's rejection for the saga.
    ///
    /// # Errors
    /// Every error other than a rejection.
    pub fn from_executed<E: std::error::Error>(
        executed: Result<ExecutionOutcome, ExecuteError<E>>,
        refusal: impl FnOnce(E) -> R,
    ) -> Result<Self, HandlerError> {
        match executed {
            Ok(_) => Ok(Self::Done),
            Err(ExecuteError::Rejected(error)) => Ok(Self::Refused(refusal(error))),
            Err(error) => Err(error.into()),
        }
    }
}

/// Executes the commands of a saga on their aggregates.
#[async_trait]
pub trait SagaCommands<S: Saga>: Send + Sync + 'static {
    /// Executes a command with [`PgTx::execute`] in the given transaction, and nothing outside it.
    ///
    /// # Errors
    /// [`HandlerError`] when the command is neither done nor rejected.
    async fn execute(
        &self,
        tx: &mut PgTx,
        command: &S::Command,
        context: &CommandContext,
    ) -> Result<CommandOutcome<S::Refusal>, HandlerError>;
}
