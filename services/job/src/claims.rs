//! Assigns queued jobs to machines.
//!
//! Many machines claim at once, and the read model with the queue may lag. The read model only suggests candidates, oldest
//! first; the job aggregate accepts exactly one assignment. The assignment and the machine's lease commit together. A claim
//! repeated under the same idempotency key returns the same job.

use std::time::Duration;

use epoch::{CommandContext, ExecuteError, ExecutionOutcome, Repository, Version};
use epoch_postgres::{PgStore, PgTx, TransactionError};
use futures::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    domain::{
        job::{Job, JobCommand, JobError},
        machine_type::MachineType,
    },
    leases,
    projections::jobs::{self, QueuedJob},
};

/// Time between two looks at an empty queue.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Queued jobs read at a time.
const CANDIDATES: i64 = 16;

/// A machine's request for a job.
pub(crate) struct Claim {
    pub(crate) machine_id: Uuid,
    pub(crate) machine_type: MachineType,
    pub(crate) wait: Duration,
    pub(crate) context: CommandContext,
}

/// Assigns the job that has been queued longest and returns its id and version.
///
/// Waits for up to `claim.wait` while no job is queued; returns `None` after that, or when `stop` is cancelled.
pub(crate) async fn assign_oldest(
    store: &PgStore,
    jobs: &Repository<Job, PgStore>,
    claim: &Claim,
    stop: &CancellationToken,
) -> Result<Option<(Uuid, Version)>, TransactionError<JobError>> {
    if let Some(first) = jobs.find_repeated(&claim.context).await? {
        return Ok(Some((first.aggregate_id, first.version)));
    }
    let deadline = Instant::now() + claim.wait;
    loop {
        if let Some(executed) = assign_first_available(store, jobs, claim).await? {
            return Ok(Some((executed.aggregate_id, executed.version)));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let stopped = stop.run_until_cancelled(tokio::time::sleep(POLL_INTERVAL.min(left))).await.is_none();
        if left.is_zero() || stopped {
            return Ok(None);
        }
    }
}

/// Tries the queued jobs, oldest first, until one accepts the assignment.
async fn assign_first_available(
    store: &PgStore,
    jobs: &Repository<Job, PgStore>,
    claim: &Claim,
) -> Result<Option<ExecutionOutcome>, TransactionError<JobError>> {
    let mut after = None;
    loop {
        let candidates = jobs::list_queued(store.pool(), after, CANDIDATES).await?;
        let Some(last) = candidates.last().copied() else { return Ok(None) };
        after = Some(last);
        for candidate in candidates {
            match assign(store, jobs, claim, candidate).await {
                Ok(executed) => return Ok(Some(executed)),
                Err(error) if is_taken(&error) => {
                    tracing::debug!(job = %candidate.id, %error, "job was assigned to another claim");
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Assigns one job and grants its lease in one transaction.
async fn assign(
    store: &PgStore,
    jobs: &Repository<Job, PgStore>,
    claim: &Claim,
    job: QueuedJob,
) -> Result<ExecutionOutcome, TransactionError<JobError>> {
    let machine_id = claim.machine_id;
    let assign = JobCommand::Assign { machine_id, machine_type: claim.machine_type.clone() };
    let context = claim.context.clone().for_tenant(job.organization_id);
    let jobs = jobs.clone();
    store
        .transaction(move |tx: &mut PgTx| {
            let (jobs, context, assign) = (jobs.clone(), context.clone(), assign.clone());
            async move {
                let executed = tx.execute(&jobs, job.id, &assign, &context).await?;
                if !executed.repeated {
                    leases::grant(tx.connection(), job.id, machine_id).await?;
                }
                Ok(executed)
            }
            .boxed()
        })
        .await
}

/// Returns whether another claim changed the job first: the job rejected the command, or every retry met a conflict.
fn is_taken(error: &TransactionError<JobError>) -> bool {
    match error {
        TransactionError::Tx(error) => error.is_conflict(),
        TransactionError::Execute(error) => {
            matches!(error, ExecuteError::Rejected(_) | ExecuteError::Conflict { .. })
        }
        TransactionError::Store(_) | TransactionError::Sql(_) => false,
    }
}
