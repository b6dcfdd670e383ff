//! From when to when jobs ran.
//!
//! The problem: a job may end without ever having run, and a machine's clock may say that it ended before it started.
//!
//! The invariant: a run is opened by `JobStarted` and closed by the first event after it that ends the job; both instants are
//! kept as the events have them, and what is odd about them is told when they are read. A job that is cancelled, fails or is
//! lost before it runs has no run; one that succeeds or takes too long without having started has one without a start. The
//! sums of running jobs are written with it; there, a run that ended before it started counts nothing.

use async_trait::async_trait;
use contracts::job::{AGGREGATE, JobCreated, JobEvent, JobStarted};
use epoch::{Batch, Envelope, Timestamp, handler::EventHandler};
use epoch_postgres::{HandlerError, PgTx, version_number};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use super::{
    ReadError, bounded,
    sums::{Changes, Scope},
};
use crate::domain::{
    compute::JobRun,
    metering::LevelChange,
    runs::Run,
    span::{Span, Window},
};

/// The subscription's name.
pub const NAME: &str = "runs";

/// Fills the tables `runs`, `metered_jobs` and `metering_sums`.
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

    fn tables(&self) -> &'static [&'static str] {
        &["runs", "metered_jobs"]
    }

    /// The runs and the changes of storage lie in the same sums, so neither can be counted anew without the other.
    fn also_writes(&self) -> &'static [&'static str] {
        &["metering_sums"]
    }

    async fn handle(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        let mut changes = Changes::default();
        for event in events {
            match event.decode::<JobEvent>()? {
                JobEvent::JobCreated(created) => note(tx, event, &created).await?,
                JobEvent::JobStarted(started) => open(tx, event, &started, &mut changes).await?,
                JobEvent::JobFailed(_) | JobEvent::JobCancelled(_) | JobEvent::JobLost(_) => {
                    close(tx, event, &mut changes).await?;
                }
                JobEvent::JobSucceeded(ended) => {
                    close_or_note(tx, event, ended.organization_id, &mut changes).await?;
                }
                JobEvent::JobTimedOut(ended) => {
                    close_or_note(tx, event, ended.organization_id, &mut changes).await?;
                }
                JobEvent::JobFilesLinked(_)
                | JobEvent::JobFilesUnlinked(_)
                | JobEvent::JobQueued(_)
                | JobEvent::JobAssigned(_) => {}
            }
        }
        changes.write(tx.connection()).await?;
        Ok(())
    }
}

async fn note(tx: &mut PgTx, event: &Envelope, created: &JobCreated) -> Result<(), HandlerError> {
    let insert = "insert into metered_jobs (job_id, organization_id, configuration_id, user_id) values ($1, $2, $3, $4) \
         on conflict do nothing";
    sqlx::query(insert)
        .bind(event.aggregate_id)
        .bind(created.organization_id)
        .bind(created.job_configuration_id)
        .bind(created.user_id)
        .execute(tx.connection())
        .await?;
    Ok(())
}

/// A second start of a run that goes on counts nothing more.
async fn open(
    tx: &mut PgTx,
    event: &Envelope,
    started: &JobStarted,
    changes: &mut Changes,
) -> Result<(), HandlerError> {
    let insert = "insert into runs (job_id, number, organization_id, user_id, started_at, started_recorded_at, machine_id, \
             configuration_id) \
         select $1, $2, $3, $4, $5, $6, $7, (select configuration_id from metered_jobs where job_id = $1) \
         where not exists (select 1 from runs where job_id = $1 and ended_at is null) \
         returning *";
    let opened = sqlx::query(insert)
        .bind(event.aggregate_id)
        .bind(version_number(event.version))
        .bind(started.organization_id)
        .bind(started.user_id)
        .bind(event.occurred_at.as_millis())
        .bind(event.recorded_at.as_millis())
        .bind(started.machine_id)
        .fetch_optional(tx.connection())
        .await?;
    if let Some(row) = opened {
        take_in(&kept(&row)?, event.occurred_at, 1, changes);
    }
    Ok(())
}

async fn close(tx: &mut PgTx, event: &Envelope, changes: &mut Changes) -> Result<(), HandlerError> {
    let update =
        "update runs set ended_at = $2, ended_recorded_at = $3 where job_id = $1 and ended_at is null returning *";
    let closed = sqlx::query(update)
        .bind(event.aggregate_id)
        .bind(event.occurred_at.as_millis())
        .bind(event.recorded_at.as_millis())
        .fetch_all(tx.connection())
        .await?;
    for row in closed {
        let run = kept(&row)?;
        if let Some(started_at) = run.run.run.started_at {
            take_in(&run, event.occurred_at.max(started_at), -1, changes);
        }
    }
    Ok(())
}

/// Only what has run can end this way, so an end of a job that never started is noted.
async fn close_or_note(
    tx: &mut PgTx,
    event: &Envelope,
    organization: Uuid,
    changes: &mut Changes,
) -> Result<(), HandlerError> {
    close(tx, event, changes).await?;
    let insert = "insert into runs (job_id, number, organization_id, ended_at, ended_recorded_at) select $1, $2, $3, $4, $5 \
         where not exists (select 1 from runs where job_id = $1)";
    sqlx::query(insert)
        .bind(event.aggregate_id)
        .bind(version_number(event.version))
        .bind(organization)
        .bind(event.occurred_at.as_millis())
        .bind(event.recorded_at.as_millis())
        .execute(tx.connection())
        .await?;
    Ok(())
}

fn take_in(run: &KeptRun, at: Timestamp, delta: i64, changes: &mut Changes) {
    for (scope, subject) in run.subjects() {
        changes.push(run.organization, scope, subject, LevelChange { at, delta });
    }
}

/// A run as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRun {
    /// Its organization.
    pub organization: Uuid,
    /// From when to when, and whose.
    pub run: JobRun<Uuid, Uuid>,
    /// The configuration of its job, if that is known.
    pub configuration: Option<Uuid>,
    /// Where it ran.
    pub machine: Option<Uuid>,
    started_recorded_at: Option<Timestamp>,
    ended_recorded_at: Option<Timestamp>,
}

impl KeptRun {
    /// The run as it was known at an instant.
    #[must_use]
    pub fn known_at(&self, known_at: Timestamp) -> Run {
        let known = |recorded_at: Option<Timestamp>| recorded_at.is_none_or(|recorded_at| recorded_at <= known_at);
        let Run { started_at, ended_at } = self.run.run;
        Run {
            started_at: started_at.filter(|_| known(self.started_recorded_at)),
            ended_at: ended_at.filter(|_| known(self.ended_recorded_at)),
        }
    }

    /// In whose sums it counts.
    #[must_use]
    pub fn subjects(&self) -> [(Scope, Option<Uuid>); 4] {
        [
            (Scope::Running, None),
            (Scope::RunningByUser, self.run.user),
            (Scope::RunningByConfiguration, self.configuration),
            (Scope::RunningByMachine, self.machine),
        ]
    }

    /// How it changes how many jobs run: once when it starts, once when it ends.
    #[must_use]
    pub fn level_changes(run: Run) -> Vec<LevelChange> {
        let Some(started_at) = run.started_at else { return Vec::new() };
        let mut changes = vec![LevelChange { at: started_at, delta: 1 }];
        changes.extend(run.ended_at.map(|ended_at| LevelChange { at: ended_at.max(started_at), delta: -1 }));
        changes
    }
}

fn kept(row: &PgRow) -> Result<KeptRun, sqlx::Error> {
    let instant = |column: &str| row.try_get::<Option<i64>, _>(column).map(|at| at.map(Timestamp::from_millis));
    let run = Run { started_at: instant("started_at")?, ended_at: instant("ended_at")? };
    Ok(KeptRun {
        organization: row.try_get("organization_id")?,
        run: JobRun { job: row.try_get("job_id")?, user: row.try_get("user_id")?, run },
        configuration: row.try_get("configuration_id")?,
        machine: row.try_get("machine_id")?,
        started_recorded_at: instant("started_recorded_at")?,
        ended_recorded_at: instant("ended_recorded_at")?,
    })
}

fn all_kept(rows: &[PgRow]) -> Result<Vec<KeptRun>, sqlx::Error> {
    rows.iter().map(kept).collect()
}

/// Runs that ended in order can have started before the period by no more than the longest took. Beside them: those that
/// go on, those that are odd, and those that went on as far as was known.
const PAGE: &str = "with longest as ( \
         select coalesce(max(ended_at - started_at), 0) as millis from runs \
         where organization_id = $1 and ended_at >= started_at \
     ), touched as ( \
         select r.* from longest, runs r where r.organization_id = $1 and r.ended_at >= r.started_at and r.ended_at >= $2 \
             and r.started_at >= $2 - longest.millis and r.started_at <= $3 \
         union \
         select * from runs where organization_id = $1 and ended_at is null and started_at <= $3 \
         union \
         select * from runs where organization_id = $1 and (started_at is null or ended_at < started_at) \
             and (ended_at >= $2 or started_at >= $2) and least(started_at, ended_at) <= $3 \
         union \
         select * from runs where organization_id = $1 and ended_recorded_at > $4 and started_at <= $3 \
     ), page as ( \
         select distinct job_id from touched where job_id > $5 order by job_id limit $6 \
     ) \
     select touched.* from touched join page using (job_id) order by job_id, number";

/// The runs that a window's usage needs, of up to `limit` jobs after `after`, by job; with `known_at`, also those that had not
/// ended as far as was known then.
///
/// # Errors
/// When the database gives no answer.
pub async fn page(
    connection: &mut PgConnection,
    organization: Uuid,
    window: Window,
    known_at: Option<Timestamp>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<KeptRun>, sqlx::Error> {
    let (first, last) = window.needed();
    let query = sqlx::query(PAGE).bind(organization).bind(first.as_millis()).bind(last.as_millis());
    let query = query.bind(known_at.map(Timestamp::as_millis)).bind(after.unwrap_or_default()).bind(limit);
    all_kept(&query.fetch_all(connection).await?)
}

/// The runs that are odd and that a window's usage needs.
///
/// # Errors
/// [`ReadError`], also when there are more than `limit`.
pub async fn odd(
    connection: &mut PgConnection,
    organization: Uuid,
    window: Window,
    limit: i64,
) -> Result<Vec<KeptRun>, ReadError> {
    let (first, last) = window.needed();
    let query = "select * from runs where organization_id = $1 and (started_at is null or ended_at < started_at) \
         and (ended_at >= $2 or started_at >= $2) and least(started_at, ended_at) <= $3 order by job_id, number limit $4";
    let query = sqlx::query(query).bind(organization).bind(first.as_millis()).bind(last.as_millis());
    let runs = all_kept(&query.bind(limit.saturating_add(1)).fetch_all(connection).await?)?;
    bounded(runs.len(), limit, "runs")?;
    Ok(runs)
}

/// The runs of which something up to and with `last` was not known yet at `known_at`.
///
/// # Errors
/// [`ReadError`], also when there are more than `limit`.
pub async fn recorded_after(
    connection: &mut PgConnection,
    organization: Uuid,
    known_at: Timestamp,
    last: Timestamp,
    limit: i64,
) -> Result<Vec<KeptRun>, ReadError> {
    let query = "select * from runs where organization_id = $1 and started_recorded_at > $2 and started_at <= $3 \
         union \
         select * from runs where organization_id = $1 and ended_recorded_at > $2 and least(started_at, ended_at) <= $3 \
         limit $4";
    let query = sqlx::query(query).bind(organization).bind(known_at.as_millis()).bind(last.as_millis());
    let runs = all_kept(&query.bind(limit.saturating_add(1)).fetch_all(connection).await?)?;
    bounded(runs.len(), limit, "runs")?;
    Ok(runs)
}

/// The runs that started or ended in a span.
///
/// # Errors
/// [`ReadError`], also when there are more than `limit`.
pub async fn within(
    connection: &mut PgConnection,
    organization: Uuid,
    span: Span,
    limit: i64,
) -> Result<Vec<KeptRun>, ReadError> {
    let query = "select * from runs where organization_id = $1 and started_at >= $2 and started_at < $3 \
         union \
         select * from runs where organization_id = $1 and ended_at >= $2 and ended_at < $3 \
         limit $4";
    let query = sqlx::query(query).bind(organization).bind(span.start().as_millis()).bind(span.end().as_millis());
    let runs = all_kept(&query.bind(limit.saturating_add(1)).fetch_all(connection).await?)?;
    bounded(runs.len(), limit, "runs")?;
    Ok(runs)
}
