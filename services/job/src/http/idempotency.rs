//! Repeated requests whose preconditions have changed since the first one.

use epoch::{
    CommandContext, Executed,
    store::{Appender, FoundCommand},
};
use epoch_postgres::PgStore;
use service_kit::Problem;

/// Returns the stored result of an earlier execution under the same idempotency key, or else `refusal`.
///
/// Preconditions outside the aggregate, for example input files, may have changed since the first request. A repeated
/// request must still return its first result.
pub(super) async fn first_answer_or(
    store: &PgStore,
    context: &CommandContext,
    refusal: Problem,
) -> Result<Executed, Problem> {
    let Some(idempotency) = &context.idempotency else { return Err(refusal) };
    match store.find_command(context.command_id, &idempotency.fingerprint).await? {
        Some(FoundCommand::Same(record)) => {
            Ok(Executed { aggregate_id: record.aggregate_id, version: record.version, appended: 0, repeated: true })
        }
        Some(FoundCommand::Other) | None => Err(refusal),
    }
}
