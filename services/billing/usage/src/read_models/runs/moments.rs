//! Starts and ends of jobs, and the runs they pair up to.

use std::collections::BTreeMap;

use contracts::job::{JobCreated, JobStarted};
use epoch::{Envelope, Timestamp};
use epoch_postgres::version_number;
use rating::metering::{
    compute::JobRun,
    pairing::{Moment, MomentKind, PairedRun, pair_moments},
    run::Run,
};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    read_error::{ReadError, check_limit},
    read_models::runs::run_record::{RecordedRun, RunRecord},
};

/// Rows of a batch of events, in columns.
#[derive(Default)]
pub(super) struct JobEventRows {
    created: (Vec<Uuid>, Vec<Uuid>, Vec<Uuid>, Vec<Option<Uuid>>),
    jobs: Vec<Uuid>,
    versions: Vec<i64>,
    organizations: Vec<Uuid>,
    kinds: Vec<i16>,
    instants: Vec<i64>,
    recorded: Vec<i64>,
    users: Vec<Option<Uuid>>,
    machines: Vec<Option<Uuid>>,
    machine_types: Vec<Option<String>>,
    events: Vec<Uuid>,
}

impl JobEventRows {
    pub(super) fn created(&mut self, event: &Envelope, created: &JobCreated) {
        self.created.0.push(event.aggregate_id);
        self.created.1.push(created.organization_id);
        self.created.2.push(created.job_configuration_id);
        self.created.3.push(created.user_id);
    }

    pub(super) fn moment(
        &mut self,
        event: &Envelope,
        organization: Uuid,
        kind: MomentKind,
        started: Option<JobStarted>,
    ) {
        self.jobs.push(event.aggregate_id);
        self.versions.push(version_number(event.version));
        self.organizations.push(organization);
        self.kinds.push(kind_number(kind));
        self.instants.push(event.occurred_at.as_millis());
        self.recorded.push(event.recorded_at.as_millis());
        self.users.push(started.as_ref().and_then(|started| started.user_id));
        self.machines.push(started.as_ref().map(|started| started.machine_id));
        self.machine_types.push(started.map(|started| started.machine_type));
        self.events.push(event.event_id);
    }

    /// Inserts the rows, and returns the jobs with runs that may have changed.
    pub(super) async fn write(self, connection: &mut PgConnection) -> Result<Vec<Uuid>, sqlx::Error> {
        if !self.created.0.is_empty() {
            let insert = "insert into metered_jobs (job_id, organization_id, configuration_id, user_id) \
                 select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[]) on conflict do nothing";
            sqlx::query(insert)
                .bind(self.created.0)
                .bind(self.created.1)
                .bind(self.created.2)
                .bind(self.created.3)
                .execute(&mut *connection)
                .await?;
        }
        if self.jobs.is_empty() {
            return Ok(self.jobs);
        }
        let insert = include_str!("insert_moments.sql");
        sqlx::query(insert)
            .bind(&self.jobs)
            .bind(self.versions)
            .bind(self.organizations)
            .bind(self.kinds)
            .bind(self.instants)
            .bind(self.recorded)
            .bind(self.users)
            .bind(self.machines)
            .bind(self.machine_types)
            .bind(self.events)
            .execute(connection)
            .await?;
        let mut jobs = self.jobs;
        jobs.sort_unstable();
        jobs.dedup();
        Ok(jobs)
    }
}

/// Returns the number that is stored for a kind.
pub(crate) const fn kind_number(kind: MomentKind) -> i16 {
    match kind {
        MomentKind::Started => 1,
        MomentKind::Completed => 2,
        MomentKind::Terminated => 3,
    }
}

/// A stored moment with the configuration of its job.
#[derive(Debug, Clone)]
struct RecordedMoment {
    version: i64,
    organization: Uuid,
    kind: MomentKind,
    at: Timestamp,
    recorded_at: Timestamp,
    user: Option<Uuid>,
    machine: Option<Uuid>,
    machine_type: Option<Uuid>,
    configuration: Option<Uuid>,
}

impl Moment for RecordedMoment {
    fn kind(&self) -> MomentKind {
        self.kind
    }

    fn at(&self) -> Timestamp {
        self.at
    }
}

const MOMENTS: &str = include_str!("moments_of_jobs.sql");

/// Pairs the moments of jobs into runs, by job and number.
///
/// # Errors
/// The database failed.
pub async fn paired_runs(
    connection: &mut PgConnection,
    jobs: &[Uuid],
) -> Result<BTreeMap<(Uuid, i64), RunRecord>, sqlx::Error> {
    Ok(runs_of(moments_of(&sqlx::query(MOMENTS).bind(jobs).fetch_all(connection).await?)?))
}

/// Jobs with moments that were recorded after an instant, with the runs known at that instant.
#[derive(Debug, Default)]
pub struct LateRuns {
    pub jobs: Vec<Uuid>,
    /// The runs paired from the moments known at the instant, by job and number.
    pub runs: Vec<RunRecord>,
}

/// A moment after the last instant may still decide which start an earlier end belongs to. So all moments of
/// these jobs are read, except for jobs without a moment up to the last instant.
const OF_LATE: &str = include_str!("moments_of_late_jobs.sql");

/// Returns the jobs with moments up to and including `last` and moments recorded after `known_at`, with their
/// runs as known at that time.
///
/// # Errors
/// [`ReadError`], also when they have more than `limit` moments.
pub async fn runs_known_at(
    connection: &mut PgConnection,
    organization: Uuid,
    known_at: Timestamp,
    last: Timestamp,
    limit: i64,
) -> Result<LateRuns, ReadError> {
    let query = sqlx::query(OF_LATE).bind(organization).bind(known_at.as_millis()).bind(last.as_millis());
    let rows = query.bind(limit.saturating_add(1)).fetch_all(connection).await?;
    check_limit(rows.len(), limit, "starts and ends of jobs")?;
    let mut moments = moments_of(&rows)?;
    let jobs = moments.keys().copied().collect();
    for of_job in moments.values_mut() {
        of_job.retain(|moment| moment.recorded_at <= known_at);
    }
    Ok(LateRuns { jobs, runs: runs_of(moments).into_values().collect() })
}

fn moments_of(rows: &[PgRow]) -> Result<BTreeMap<Uuid, Vec<RecordedMoment>>, sqlx::Error> {
    let mut moments: BTreeMap<Uuid, Vec<RecordedMoment>> = BTreeMap::new();
    for row in rows {
        let instant = |column: &str| row.try_get::<i64, _>(column).map(Timestamp::from_millis);
        moments.entry(row.try_get("job_id")?).or_default().push(RecordedMoment {
            version: row.try_get("version")?,
            organization: row.try_get("organization_id")?,
            kind: match row.try_get::<i16, _>("kind")? {
                1 => MomentKind::Started,
                2 => MomentKind::Completed,
                _ => MomentKind::Terminated,
            },
            at: instant("at")?,
            recorded_at: instant("recorded_at")?,
            user: row.try_get("user_id")?,
            machine: row.try_get("machine_id")?,
            machine_type: row.try_get("machine_type_id")?,
            configuration: row.try_get("configuration_id")?,
        });
    }
    Ok(moments)
}

fn runs_of(moments: BTreeMap<Uuid, Vec<RecordedMoment>>) -> BTreeMap<(Uuid, i64), RunRecord> {
    let mut runs = BTreeMap::new();
    for (job, moments) in moments {
        for PairedRun { started, ended, last_start } in pair_moments(moments) {
            let Some(first) = started.as_ref().or(ended.as_ref()) else { continue };
            let at = |moment: &Option<RecordedMoment>| moment.as_ref().map(|moment| moment.at);
            let recorded = |moment: &Option<RecordedMoment>| moment.as_ref().map(|moment| moment.recorded_at);
            let run = Run { started_at: at(&started), ended_at: at(&ended) };
            let run = RunRecord {
                number: first.version,
                organization: first.organization,
                recorded: RecordedRun {
                    run: JobRun { job, user: last_start.and_then(|start| start.user), run },
                    started_recorded_at: recorded(&started),
                    ended_recorded_at: recorded(&ended),
                },
                configuration: started.as_ref().and(first.configuration),
                machine: first.machine,
                machine_type: first.machine_type,
            };
            runs.insert((job, run.number), run);
        }
    }
    runs
}
