//! Runs of jobs.
//!
//! A job may end without a run, and by the clock of its machine a run may end before it started. Invariant:
//! each start or end of a job is one row of `job_moments`, and the runs are the result of [`pair_moments`],
//! as in `billing rate`. Both instants of a run are stored as the events give them, and readers derive
//! anomalies. The rollups of running jobs are written in the same transaction; there, a run that ended before
//! it started counts 0.
//!
//! [`pair_moments`]: rating::metering::pairing::pair_moments

mod moments;
mod run_record;

use std::collections::BTreeMap;

use async_trait::async_trait;
use contracts::job::{AGGREGATE, JobCreated, JobEvent, JobStarted};
use epoch::{Batch, Envelope, Timestamp};
use epoch_postgres::{HandlerError, PgTx, Projection};
use sqlx::PgConnection;
use uuid::Uuid;

use self::moments::JobEventRows;
pub(crate) use self::moments::kind_number;
pub use self::{
    moments::{LateRuns, paired_runs, runs_known_at},
    run_record::{RecordedRun, RunRecord, runs_of_jobs, within},
};
use crate::rollup::{run_changes::RunChanges, scope::Scope};
use rating::metering::{compute::JobRun, level::LevelChange, pairing::MomentKind};

/// The name of the subscription.
pub const NAME: &str = "runs";

/// Projection into the tables `job_moments`, `runs`, `metered_jobs`, `machine_types` and `metering_run_sums`.
pub struct Runs;

#[async_trait]
impl Projection for Runs {
    const NAME: &'static str = NAME;
    const AGGREGATES: &'static [&'static str] = &[AGGREGATE];
    const TABLES: &'static [&'static str] =
        &["job_moments", "runs", "metered_jobs", "machine_types", "metering_run_sums"];

    async fn apply(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        let mut rows = JobEventRows::default();
        for event in events {
            match run_event(event)? {
                Some(RunEvent::Created(created)) => rows.created(event, &created),
                Some(RunEvent::Moment { organization, kind, started }) => {
                    rows.moment(event, organization, kind, started);
                }
                None => {}
            }
        }
        let jobs = rows.write(tx.connection()).await?;
        if !jobs.is_empty() {
            update_runs(tx.connection(), &jobs).await?;
        }
        Ok(())
    }
}

/// The content of a job event that matters to runs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RunEvent {
    Created(JobCreated),
    /// The start or the end of an attempt.
    Moment {
        organization: Uuid,
        kind: MomentKind,
        /// The event of a start.
        started: Option<JobStarted>,
    },
}

/// Returns the content of an event, or `None` for an event that does not matter to runs.
///
/// # Errors
/// [`HandlerError`] when the event cannot be decoded.
pub(crate) fn run_event(event: &Envelope) -> Result<Option<RunEvent>, HandlerError> {
    let (organization, kind) = match event.decode::<JobEvent>()? {
        JobEvent::JobCreated(created) => return Ok(Some(RunEvent::Created(created))),
        JobEvent::JobStarted(started) => {
            let (organization, kind) = (started.organization_id, MomentKind::Started);
            return Ok(Some(RunEvent::Moment { organization, kind, started: Some(started) }));
        }
        JobEvent::JobSucceeded(ended) => (ended.organization_id, MomentKind::Completed),
        JobEvent::JobTimedOut(ended) => (ended.organization_id, MomentKind::Completed),
        JobEvent::JobFailed(ended) => (ended.organization_id, MomentKind::Terminated),
        JobEvent::JobCancelled(ended) => (ended.organization_id, MomentKind::Terminated),
        JobEvent::JobLost(ended) => (ended.organization_id, MomentKind::Terminated),
        JobEvent::JobFilesLinked(_)
        | JobEvent::JobFilesUnlinked(_)
        | JobEvent::JobQueued(_)
        | JobEvent::JobAssigned(_) => return Ok(None),
    };
    Ok(Some(RunEvent::Moment { organization, kind, started: None }))
}

/// Pairs the runs of these jobs again, and updates the rollups by the difference.
async fn update_runs(connection: &mut PgConnection, jobs: &[Uuid]) -> Result<(), sqlx::Error> {
    let paired = paired_runs(connection, jobs).await?;
    let stored = runs_of_jobs(connection, jobs).await?;
    let removed: Vec<_> = stored.iter().filter(|(key, run)| paired.get(key) != Some(run)).collect();
    let added: Vec<_> = paired.iter().filter(|(key, run)| stored.get(key) != Some(run)).collect();
    let changes_of_level = level_difference(removed.iter().map(|(_, run)| *run), added.iter().map(|(_, run)| *run));
    let deleted = stored.keys().filter(|key| !paired.contains_key(*key)).copied();
    let (deleted, numbers): (Vec<Uuid>, Vec<i64>) = deleted.unzip();
    if !deleted.is_empty() {
        let delete = "delete from runs r using unnest($1::uuid[], $2::bigint[]) as d (job_id, number) \
             where r.job_id = d.job_id and r.number = d.number";
        sqlx::query(delete).bind(deleted).bind(numbers).execute(&mut *connection).await?;
    }
    write(connection, added.into_iter().map(|(_, run)| run)).await?;
    let mut changes = RunChanges::default();
    for (organization, scope, subject, change) in changes_of_level {
        changes.push(organization, scope, subject, change);
    }
    changes.write(connection).await
}

/// Returns the level changes that turn the rollups of the runs `removed` into those of the runs `added`.
pub(crate) fn level_difference<'r>(
    removed: impl Iterator<Item = &'r RunRecord>,
    added: impl Iterator<Item = &'r RunRecord>,
) -> Vec<(Uuid, Scope, Option<Uuid>, LevelChange)> {
    let mut net: BTreeMap<(Uuid, Scope, Option<Uuid>, Timestamp), i64> = BTreeMap::new();
    for (run, sign) in removed.map(|run| (run, -1)).chain(added.map(|run| (run, 1))) {
        for change in RunRecord::level_changes(run.recorded.run.run) {
            for (scope, subject) in run.subjects() {
                *net.entry((run.organization, scope, subject, change.at)).or_insert(0) += sign * change.delta;
            }
        }
    }
    net.retain(|_, delta| *delta != 0);
    let change =
        |((organization, scope, subject, at), delta)| (organization, scope, subject, LevelChange { at, delta });
    net.into_iter().map(change).collect()
}

async fn write(connection: &mut PgConnection, runs: impl Iterator<Item = &RunRecord>) -> Result<(), sqlx::Error> {
    let (mut jobs, mut numbers, mut organizations) = (Vec::new(), Vec::new(), Vec::new());
    let (mut users, mut configurations, mut machines) = (Vec::new(), Vec::new(), Vec::new());
    let (mut machine_types, mut started, mut ended) = (Vec::new(), Vec::new(), Vec::new());
    let (mut started_recorded, mut ended_recorded) = (Vec::new(), Vec::new());
    for run in runs {
        let RecordedRun { run: JobRun { job, user, run: at }, started_recorded_at, ended_recorded_at } = &run.recorded;
        jobs.push(*job);
        numbers.push(run.number);
        organizations.push(run.organization);
        users.push(*user);
        configurations.push(run.configuration);
        machines.push(run.machine);
        machine_types.push(run.machine_type);
        started.push(at.started_at.map(Timestamp::as_millis));
        ended.push(at.ended_at.map(Timestamp::as_millis));
        started_recorded.push(started_recorded_at.map(Timestamp::as_millis));
        ended_recorded.push(ended_recorded_at.map(Timestamp::as_millis));
    }
    if jobs.is_empty() {
        return Ok(());
    }
    let upsert = include_str!("runs/upsert_runs.sql");
    sqlx::query(upsert)
        .bind(jobs)
        .bind(numbers)
        .bind(organizations)
        .bind(users)
        .bind(configurations)
        .bind(machines)
        .bind(machine_types)
        .bind(started)
        .bind(ended)
        .bind(started_recorded)
        .bind(ended_recorded)
        .execute(connection)
        .await?;
    Ok(())
}
