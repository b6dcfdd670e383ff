//! From when to when jobs ran.
//!
//! The problem: a job may end without ever having run, and a machine's clock may say that it ended before it started.
//!
//! The invariant: a run is opened by `JobStarted` and closed by the first event after it that ends the job; both instants are
//! kept as the events have them, and what is odd about them is told when they are read. A job that is cancelled, fails or is
//! lost before it runs has no run; one that succeeds or takes too long without having started has one without a start.

use async_trait::async_trait;
use contracts::job::{AGGREGATE, JobEvent, JobStarted};
use epoch::{Batch, Envelope, Timestamp, handler::EventHandler};
use epoch_postgres::{HandlerError, PgTx, version_number};
use futures::TryStreamExt;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::domain::{compute::JobRun, runs::Run, span::Window};

/// The subscription's name.
pub const NAME: &str = "runs";

/// Fills the table `runs`.
pub struct Runs;

#[async_trait]
impl EventHandler<PgTx> for Runs {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        NAME
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &[AGGREGATE]
    }

    async fn handle(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        for event in events {
            match event.decode::<JobEvent>()? {
                JobEvent::JobStarted(started) => open(tx, event, &started).await?,
                JobEvent::JobFailed(_) | JobEvent::JobCancelled(_) | JobEvent::JobLost(_) => {
                    close(tx, event).await?;
                }
                JobEvent::JobSucceeded(ended) => close_or_note(tx, event, ended.organization_id).await?,
                JobEvent::JobTimedOut(ended) => close_or_note(tx, event, ended.organization_id).await?,
                JobEvent::JobCreated(_)
                | JobEvent::JobFilesLinked(_)
                | JobEvent::JobFilesUnlinked(_)
                | JobEvent::JobQueued(_)
                | JobEvent::JobAssigned(_) => {}
            }
        }
        Ok(())
    }
}

/// A second start of a run that goes on counts nothing more.
async fn open(tx: &mut PgTx, event: &Envelope, started: &JobStarted) -> Result<(), HandlerError> {
    let insert = "insert into runs (job_id, number, organization_id, user_id, started_at) select $1, $2, $3, $4, $5 \
         where not exists (select 1 from runs where job_id = $1 and ended_at is null)";
    sqlx::query(insert)
        .bind(event.aggregate_id)
        .bind(version_number(event.version))
        .bind(started.organization_id)
        .bind(started.user_id)
        .bind(event.occurred_at.as_millis())
        .execute(tx.connection())
        .await?;
    Ok(())
}

async fn close(tx: &mut PgTx, event: &Envelope) -> Result<(), HandlerError> {
    sqlx::query("update runs set ended_at = $2 where job_id = $1 and ended_at is null")
        .bind(event.aggregate_id)
        .bind(event.occurred_at.as_millis())
        .execute(tx.connection())
        .await?;
    Ok(())
}

/// Only what has run can end this way, so an end of a job that never started is noted.
async fn close_or_note(tx: &mut PgTx, event: &Envelope, organization: Uuid) -> Result<(), HandlerError> {
    close(tx, event).await?;
    let insert = "insert into runs (job_id, number, organization_id, ended_at) select $1, $2, $3, $4 \
         where not exists (select 1 from runs where job_id = $1)";
    sqlx::query(insert)
        .bind(event.aggregate_id)
        .bind(version_number(event.version))
        .bind(organization)
        .bind(event.occurred_at.as_millis())
        .execute(tx.connection())
        .await?;
    Ok(())
}

/// `least` and `greatest` pass over what is null.
const RUNS: &str = "select job_id, user_id, started_at, ended_at from runs where organization_id = $1 \
     and (ended_at is null or ended_at >= $2 or started_at >= $2) and least(started_at, ended_at) <= $3";

/// An organization's runs that a window's usage needs.
///
/// # Errors
/// When the database gives no answer.
pub async fn runs(pool: &PgPool, organization: Uuid, window: Window) -> Result<Vec<JobRun<Uuid, Uuid>>, sqlx::Error> {
    let (first, last) = window.needed();
    let mut rows = sqlx::query(RUNS).bind(organization).bind(first.as_millis()).bind(last.as_millis()).fetch(pool);
    let mut runs = Vec::new();
    while let Some(row) = rows.try_next().await? {
        let instant = |millis: Option<i64>| millis.map(Timestamp::from_millis);
        let run = Run { started_at: instant(row.try_get("started_at")?), ended_at: instant(row.try_get("ended_at")?) };
        runs.push(JobRun { job: row.try_get("job_id")?, user: row.try_get("user_id")?, run });
    }
    Ok(runs)
}
