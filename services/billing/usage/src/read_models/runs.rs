//! From when to when jobs ran.
//!
//! The problem: a job may end without ever having run, and a machine's clock may say that it ended before it started.
//!
//! The invariant: each moment at which a job starts or ends is one row, and the runs are what [`pair`] makes of them, as in
//! `billing rate`; both instants of a run are kept as the events have them, and what is odd about them is told when they are read. The
//! sums of running jobs are written with it; there, a run that ended before it started counts nothing.

mod moments;
mod run_record;

use std::collections::BTreeMap;

use async_trait::async_trait;
use contracts::job::{AGGREGATE, JobCreated, JobEvent, JobStarted};
use epoch::{Batch, Envelope, Timestamp, handler::EventHandler};
use epoch_postgres::{HandlerError, PgTx};
use sqlx::PgConnection;
use uuid::Uuid;

use self::moments::Notes;
pub(crate) use self::moments::kind_number;
pub use self::{
    moments::{Known, known_at, paired},
    run_record::{KeptRun, RecordedRun, of_jobs, within},
};
use crate::rollup::sums::{RunChanges, Scope};
use rating::metering::{compute::JobRun, level::LevelChange, pairing::Kind};

/// The subscription's name.
pub const NAME: &str = "runs";

/// Fills the tables `job_moments`, `runs`, `metered_jobs`, `machine_types` and `metering_run_sums`.
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
        &["job_moments", "runs", "metered_jobs", "machine_types", "metering_run_sums"]
    }

    async fn handle(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        let mut notes = Notes::default();
        for event in events {
            match told(event)? {
                Some(Told::Created(created)) => notes.created(event, &created),
                Some(Told::Moment { organization, kind, started }) => {
                    notes.moment(event, organization, kind, started);
                }
                None => {}
            }
        }
        let jobs = notes.write(tx.connection()).await?;
        if !jobs.is_empty() {
            put_right(tx.connection(), &jobs).await?;
        }
        Ok(())
    }
}

/// What an event says about its job.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Told {
    /// It was created.
    Created(JobCreated),
    /// It started or ended.
    Moment {
        organization: Uuid,
        kind: Kind,
        /// How, where it started.
        started: Option<JobStarted>,
    },
}

/// What an event says about its job; `None` when it is nothing that runs are made of.
///
/// # Errors
/// [`HandlerError`] when the event can't be read.
pub(crate) fn told(event: &Envelope) -> Result<Option<Told>, HandlerError> {
    let (organization, kind) = match event.decode::<JobEvent>()? {
        JobEvent::JobCreated(created) => return Ok(Some(Told::Created(created))),
        JobEvent::JobStarted(started) => {
            let (organization, kind) = (started.organization_id, Kind::Started);
            return Ok(Some(Told::Moment { organization, kind, started: Some(started) }));
        }
        JobEvent::JobSucceeded(ended) => (ended.organization_id, Kind::Completed),
        JobEvent::JobTimedOut(ended) => (ended.organization_id, Kind::Completed),
        JobEvent::JobFailed(ended) => (ended.organization_id, Kind::GivenUp),
        JobEvent::JobCancelled(ended) => (ended.organization_id, Kind::GivenUp),
        JobEvent::JobLost(ended) => (ended.organization_id, Kind::GivenUp),
        JobEvent::JobFilesLinked(_)
        | JobEvent::JobFilesUnlinked(_)
        | JobEvent::JobQueued(_)
        | JobEvent::JobAssigned(_) => return Ok(None),
    };
    Ok(Some(Told::Moment { organization, kind, started: None }))
}

/// Makes the runs of these jobs what their moments say, and the sums what the runs say.
async fn put_right(connection: &mut PgConnection, jobs: &[Uuid]) -> Result<(), sqlx::Error> {
    let paired = paired(connection, jobs).await?;
    let kept = of_jobs(connection, jobs).await?;
    let gone: Vec<_> = kept.iter().filter(|(key, run)| paired.get(key) != Some(run)).collect();
    let come: Vec<_> = paired.iter().filter(|(key, run)| kept.get(key) != Some(run)).collect();
    let difference = difference(gone.iter().map(|(_, run)| *run), come.iter().map(|(_, run)| *run));
    let dropped = kept.keys().filter(|key| !paired.contains_key(*key)).copied();
    let (dropped, numbers): (Vec<Uuid>, Vec<i64>) = dropped.unzip();
    if !dropped.is_empty() {
        let delete = "delete from runs r using unnest($1::uuid[], $2::bigint[]) as d (job_id, number) \
             where r.job_id = d.job_id and r.number = d.number";
        sqlx::query(delete).bind(dropped).bind(numbers).execute(&mut *connection).await?;
    }
    write(connection, come.into_iter().map(|(_, run)| run)).await?;
    let mut changes = RunChanges::default();
    for (organization, scope, subject, change) in difference {
        changes.push(organization, scope, subject, change);
    }
    changes.write(connection).await
}

/// What sums of these runs lack, or have too much, when other runs come in their place.
pub(crate) fn difference<'r>(
    gone: impl Iterator<Item = &'r KeptRun>,
    come: impl Iterator<Item = &'r KeptRun>,
) -> Vec<(Uuid, Scope, Option<Uuid>, LevelChange)> {
    let mut net: BTreeMap<(Uuid, Scope, Option<Uuid>, Timestamp), i64> = BTreeMap::new();
    for (run, sign) in gone.map(|run| (run, -1)).chain(come.map(|run| (run, 1))) {
        for change in KeptRun::level_changes(run.recorded.run.run) {
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

async fn write(connection: &mut PgConnection, runs: impl Iterator<Item = &KeptRun>) -> Result<(), sqlx::Error> {
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
    let upsert = "insert into runs (job_id, number, organization_id, user_id, configuration_id, machine_id, machine_type_id, \
             started_at, ended_at, started_recorded_at, ended_recorded_at) \
         select * from unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::uuid[], $5::uuid[], $6::uuid[], $7::uuid[], \
             $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[]) \
         on conflict (job_id, number) do update set user_id = excluded.user_id, \
             configuration_id = excluded.configuration_id, machine_id = excluded.machine_id, \
             machine_type_id = excluded.machine_type_id, started_at = excluded.started_at, ended_at = excluded.ended_at, \
             started_recorded_at = excluded.started_recorded_at, ended_recorded_at = excluded.ended_recorded_at";
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
