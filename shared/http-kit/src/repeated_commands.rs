//! Results of commands that were executed before.
//!
//! A handler that refuses a command before it reaches the aggregate, e.g. because a file is missing, must first look for an
//! earlier execution: a repeated command returns its first result, whatever has changed since.

use epoch::{Aggregate, CommandContext, ExecuteError, ExecutionOutcome, Repository, store::EventStore};

use crate::problem::{IntoProblem, Problem};

/// Returns the result of an earlier execution of this command, or else `refusal`.
///
/// # Errors
/// `refusal` when there was no earlier execution, or when the key was used for another request. 503 when the store is
/// unavailable.
pub async fn first_result_or<A, S>(
    repository: &Repository<A, S>,
    context: &CommandContext,
    refusal: Problem,
) -> Result<ExecutionOutcome, Problem>
where
    A: Aggregate<Error: IntoProblem>,
    S: EventStore,
{
    match repository.find_repeated(context).await {
        Ok(Some(executed)) => Ok(executed),
        Ok(None) | Err(ExecuteError::CommandReused { .. }) => Err(refusal),
        Err(error) => Err(error.into()),
    }
}
