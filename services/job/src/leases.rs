//! Leases of machines on their jobs.
//!
//! A machine that disappears sends no report, and its job would run, and be billed, forever. An assigned job therefore has a
//! lease, written in the transaction that assigns it. Each heartbeat renews the lease. When a lease expires, one transaction
//! deletes it and marks the job as lost; a machine that renews too late finds no lease and must stop its work.
//!
//! All lease times come from the database clock, so clock differences between processes of this service don't matter.

use std::time::Duration;

use epoch::{Aggregate, CommandContext, ExecuteError, Repository, Timestamp};
use epoch_postgres::{PgStore, PgTx, TransactionError};
use futures::FutureExt;
use sqlx::{FromRow, PgConnection, PgExecutor};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    domain::job::{Job, JobCommand, JobError},
    timeline::JobTimeline,
};

/// Lifetime of a lease without a heartbeat, in milliseconds.
pub(crate) const LEASE_MS: i64 = 15_000;
/// Time between two searches for expired leases.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(2);

const GRANT_LEASE: &str = include_str!("leases/grant_lease.sql");
const RENEW_LEASE: &str = include_str!("leases/renew_lease.sql");
const LIST_EXPIRED_LEASES: &str = include_str!("leases/list_expired_leases.sql");
const DELETE_EXPIRED_LEASE: &str = include_str!("leases/delete_expired_lease.sql");

/// Grants a machine the lease of a job. Call it in the transaction that assigns the job.
pub(crate) async fn grant(connection: &mut PgConnection, job: Uuid, machine: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query(GRANT_LEASE).bind(job).bind(machine).bind(LEASE_MS).execute(connection).await?;
    Ok(())
}

/// Renews a machine's lease of a job. Returns `false` when the machine no longer holds it.
pub(crate) async fn renew(executor: impl PgExecutor<'_>, job: Uuid, machine: Uuid) -> Result<bool, sqlx::Error> {
    let renewed = sqlx::query(RENEW_LEASE).bind(job).bind(machine).bind(LEASE_MS).execute(executor).await?;
    Ok(renewed.rows_affected() > 0)
}

/// Deletes a machine's lease of a job that has ended.
pub(crate) async fn release(executor: impl PgExecutor<'_>, job: Uuid, machine: Uuid) -> Result<(), sqlx::Error> {
    let query = sqlx::query("delete from leases where job_id = $1 and machine_id = $2");
    query.bind(job).bind(machine).execute(executor).await?;
    Ok(())
}

/// Marks jobs with expired leases as lost, every two seconds until `stop` is cancelled.
pub(crate) async fn run_expiry(store: PgStore, jobs: Repository<Job, PgStore>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(EXPIRY_INTERVAL)).await.is_some() {
        if let Err(error) = expire_leases(&store, &jobs).await {
            tracing::warn!(%error, "search for expired leases failed; retrying");
        }
    }
}

async fn expire_leases(store: &PgStore, jobs: &Repository<Job, PgStore>) -> Result<(), TransactionError<JobError>> {
    let expired: Vec<Uuid> = sqlx::query_scalar(LIST_EXPIRED_LEASES).fetch_all(store.pool()).await?;
    for job in expired {
        // A failure must not keep the other jobs from being marked as lost.
        if let Err(error) = expire_lease(store, jobs, job).await {
            tracing::error!(%job, %error, "job with an expired lease could not be marked as lost");
        }
    }
    Ok(())
}

async fn expire_lease(
    store: &PgStore,
    jobs: &Repository<Job, PgStore>,
    job: Uuid,
) -> Result<(), TransactionError<JobError>> {
    let organization = jobs.load(job).await?.state.organization();
    let started_at = JobTimeline::load(store, job).await?.started_at;
    let jobs = jobs.clone();
    store
        .transaction(move |tx: &mut PgTx| {
            let jobs = jobs.clone();
            async move {
                let lease = sqlx::query_as(DELETE_EXPIRED_LEASE).bind(job).fetch_optional(tx.connection()).await?;
                // The lease was renewed or released in the meantime, or another process expired it.
                let Some(lease) = lease else { return Ok(()) };
                mark_lost(tx, &jobs, organization, started_at, &lease).await
            }
            .boxed()
        })
        .await
}

#[derive(FromRow)]
struct ExpiredLease {
    job_id: Uuid,
    machine_id: Uuid,
    expires_at: i64,
}

async fn mark_lost(
    tx: &mut PgTx,
    jobs: &Repository<Job, PgStore>,
    organization: Option<Uuid>,
    started_at: Option<Timestamp>,
    lease: &ExpiredLease,
) -> Result<(), TransactionError<JobError>> {
    let ExpiredLease { job_id: job, machine_id: machine, expires_at } = *lease;
    // The job ends when its lease expired, not when this task noticed it: after an outage of this service the difference
    // may be hours, which the customer must not pay for.
    let occurred_at = Timestamp::from_millis(expires_at).max(started_at.unwrap_or_default());
    let mut context = CommandContext::at(occurred_at).by("service:job");
    context.tenant = organization;
    let reason = format!("machine {machine} sent no heartbeat for {} s", LEASE_MS / 1_000);
    match tx.execute(jobs, job, &JobCommand::Lose { reason }, &context).await {
        Ok(executed) if executed.appended > 0 => {
            tracing::warn!(%job, %machine, aggregate = Job::NAME, version = %executed.version, "job lost");
            Ok(())
        }
        Ok(_) => Ok(()),
        // A lease without an assigned job is wrong; committing deletes it.
        Err(ExecuteError::Rejected(rejection)) => {
            tracing::error!(%job, %machine, %rejection, "deleting the lease of a job that is not assigned");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
