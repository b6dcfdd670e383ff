//! Which machines live.
//!
//! The problem: a machine that goes away says nothing, and its job would run forever, at the customer's cost.
//!
//! The invariant: an assigned job has a lease from the same transaction that assigned it, and a lease that its machine
//! doesn't renew in time ends the job: the lease goes and the job is lost in one transaction. A machine whose renewal
//! comes too late finds no lease and is told to stop. All times are the database's, so that the clocks of this service's
//! processes don't matter.

use std::time::Duration;

use epoch::{Aggregate, CommandContext, ExecuteError, Repository, Timestamp};
use epoch_postgres::{PgStore, PgTx};
use futures::FutureExt;
use sqlx::{PgConnection, PgExecutor};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    domain::job::{Job, JobCommand},
    timeline::Moments,
    transaction_error::Failure,
};

/// How long a machine may be silent, in milliseconds.
pub(crate) const LEASE_MS: i64 = 15_000;
/// How often expired leases are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(2);

const GRANT: &str = include_str!("leases/grant_lease.sql");
const RENEW: &str = include_str!("leases/renew_lease.sql");
const EXPIRED: &str = include_str!("leases/list_expired_leases.sql");
const TAKE_EXPIRED: &str = include_str!("leases/delete_expired_lease.sql");

/// Gives a machine its lease of a job, in the transaction that assigns the job.
pub(crate) async fn grant(connection: &mut PgConnection, job: Uuid, machine: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query(GRANT).bind(job).bind(machine).bind(LEASE_MS).execute(connection).await?;
    Ok(())
}

/// Says that a machine lives; whether its lease was still there.
pub(crate) async fn renew(executor: impl PgExecutor<'_>, job: Uuid, machine: Uuid) -> Result<bool, sqlx::Error> {
    let renewed = sqlx::query(RENEW).bind(job).bind(machine).bind(LEASE_MS).execute(executor).await?;
    Ok(renewed.rows_affected() > 0)
}

/// Ends a machine's lease of a job that has ended.
pub(crate) async fn end(executor: impl PgExecutor<'_>, job: Uuid, machine: Uuid) -> Result<(), sqlx::Error> {
    let query = sqlx::query("delete from leases where job_id = $1 and machine_id = $2");
    query.bind(job).bind(machine).execute(executor).await?;
    Ok(())
}

/// Gives up jobs of silent machines until `stop` is cancelled.
pub(crate) async fn watch(store: PgStore, jobs: Repository<Job, PgStore>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
        if let Err(error) = lose_expired(&store, &jobs).await {
            tracing::warn!(%error, "expired leases are looked for again later");
        }
    }
}

async fn lose_expired(store: &PgStore, jobs: &Repository<Job, PgStore>) -> Result<(), Failure> {
    let expired: Vec<Uuid> = sqlx::query_scalar(EXPIRED).fetch_all(store.pool()).await?;
    for job in expired {
        // One that fails must not keep the others from being given up.
        if let Err(error) = lose(store, jobs, job).await {
            tracing::error!(%job, %error, "a silent machine's job could not be given up");
        }
    }
    Ok(())
}

async fn lose(store: &PgStore, jobs: &Repository<Job, PgStore>, job: Uuid) -> Result<(), Failure> {
    let organization = jobs.load(job).await?.state.organization();
    let started_at = Moments::of(store, job).await?.started_at;
    let jobs = jobs.clone();
    store
        .transaction(move |tx: &mut PgTx| {
            let jobs = jobs.clone();
            async move {
                let taken = sqlx::query_as(TAKE_EXPIRED).bind(job).fetch_optional(tx.connection()).await?;
                // Renewed or ended meanwhile, or another process was faster.
                let Some((machine, expires_at)) = taken else { return Ok(()) };
                give_up(tx, &jobs, Silence { job, organization, machine, expires_at, started_at }).await
            }
            .boxed()
        })
        .await
}

struct Silence {
    job: Uuid,
    organization: Option<Uuid>,
    machine: Uuid,
    expires_at: i64,
    started_at: Option<Timestamp>,
}

async fn give_up(tx: &mut PgTx, jobs: &Repository<Job, PgStore>, silence: Silence) -> Result<(), Failure> {
    let Silence { job, organization, machine, expires_at, started_at } = silence;
    // When it was found out, maybe long after, when this service was back, isn't the customer's time.
    let occurred_at = Timestamp::from_millis(expires_at).max(started_at.unwrap_or_default());
    let mut context = CommandContext::at(occurred_at).by("service:job");
    context.tenant = organization;
    let reason = format!("machine {machine} gave no sign of life for {} s", LEASE_MS / 1_000);
    match tx.execute(jobs, job, &JobCommand::Lose { reason }, &context).await {
        Ok(executed) if executed.appended > 0 => {
            tracing::warn!(%job, %machine, aggregate = Job::NAME, version = %executed.version, "job lost");
            Ok(())
        }
        Ok(_) => Ok(()),
        // Then the lease is wrong, and goes all the same.
        Err(ExecuteError::Rejected(refusal)) => {
            tracing::error!(%job, %machine, %refusal, "lease of a job that nobody has");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
