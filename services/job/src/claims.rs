//! Giving jobs to machines.
//!
//! The problem: many machines ask at once for the job that has waited longest, and the read model that knows it is late.
//!
//! The invariant: a job is given to one machine, because its aggregate decides; the read model only says whom to ask first.
//! The assignment and the machine's lease are one transaction. A claim that comes again under its key gets the same job.

use std::time::Duration;

use epoch::{
    CommandContext, ExecuteError, Executed, Repository, Version,
    store::{Appender, FoundCommand},
};
use epoch_postgres::{PgStore, PgTx};
use futures::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    domain::{
        job::{Job, JobCommand},
        machine_type::MachineType,
    },
    leases,
    projections::jobs::{self, WaitingJob},
    transaction_error::Failure,
};

/// How often to look for a job while none waits.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How many waiting jobs are read at a time.
const CANDIDATES: i64 = 16;

/// A machine's claim.
pub(crate) struct Claim {
    pub(crate) machine_id: Uuid,
    pub(crate) machine_type: MachineType,
    pub(crate) wait: Duration,
    pub(crate) context: CommandContext,
}

/// Assigns the job that has waited longest; which, and its version. Waits for one as long as the claim says.
pub(crate) async fn assign_oldest(
    store: &PgStore,
    jobs: &Repository<Job, PgStore>,
    claim: &Claim,
    stop: &CancellationToken,
) -> Result<Option<(Uuid, Version)>, Failure> {
    if let Some(first) = first_answer(store, &claim.context).await? {
        return Ok(Some(first));
    }
    let deadline = Instant::now() + claim.wait;
    loop {
        if let Some(executed) = assign_any(store, jobs, claim).await? {
            return Ok(Some((executed.aggregate_id, executed.version)));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let stopped = stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY.min(left))).await.is_none();
        if left.is_zero() || stopped {
            return Ok(None);
        }
    }
}

/// What the same claim was answered before.
async fn first_answer(store: &PgStore, context: &CommandContext) -> Result<Option<(Uuid, Version)>, Failure> {
    let Some(idempotency) = &context.idempotency else { return Ok(None) };
    match store.find_command(context.command_id, &idempotency.fingerprint).await? {
        None => Ok(None),
        Some(FoundCommand::Same(record)) => Ok(Some((record.aggregate_id, record.version))),
        Some(FoundCommand::Other) => Err(ExecuteError::CommandReused { command_id: context.command_id }.into()),
    }
}

/// Goes through the waiting jobs, oldest first, until one can be had.
async fn assign_any(
    store: &PgStore,
    jobs: &Repository<Job, PgStore>,
    claim: &Claim,
) -> Result<Option<Executed>, Failure> {
    let mut after = None;
    loop {
        let candidates = jobs::waiting(store.pool(), after, CANDIDATES).await?;
        let Some(last) = candidates.last().copied() else { return Ok(None) };
        after = Some(last);
        for candidate in candidates {
            match assign(store, jobs, claim, candidate).await {
                Ok(executed) => return Ok(Some(executed)),
                Err(error) if error.is_lost_race() => {
                    tracing::debug!(job = %candidate.id, %error, "another claim was faster");
                }
                Err(error) => return Err(error),
            }
        }
    }
}

async fn assign(
    store: &PgStore,
    jobs: &Repository<Job, PgStore>,
    claim: &Claim,
    job: WaitingJob,
) -> Result<Executed, Failure> {
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
