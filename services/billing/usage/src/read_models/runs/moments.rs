//! When jobs started and ended, and the runs that this makes.

use std::collections::BTreeMap;

use contracts::job::{JobCreated, JobStarted};
use epoch::{Envelope, Timestamp};
use epoch_postgres::version_number;
use rating::metering::{
    compute::JobRun,
    pairing::{Kind, Moment, Pair, pair},
    run::Run,
};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    read_error::{ReadError, bounded},
    read_models::runs::run_record::{KeptRun, RecordedRun},
};

/// What a batch says about jobs, in columns.
#[derive(Default)]
pub(super) struct Notes {
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

impl Notes {
    pub(super) fn created(&mut self, event: &Envelope, created: &JobCreated) {
        self.created.0.push(event.aggregate_id);
        self.created.1.push(created.organization_id);
        self.created.2.push(created.job_configuration_id);
        self.created.3.push(created.user_id);
    }

    pub(super) fn moment(&mut self, event: &Envelope, organization: Uuid, kind: Kind, started: Option<JobStarted>) {
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

    /// Writes them down; the jobs whose runs may have changed.
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
        let insert = "with told as ( \
                 select * from unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::smallint[], $5::bigint[], $6::bigint[], \
                     $7::uuid[], $8::uuid[], $9::text[], $10::uuid[]) \
                 as t (job_id, version, organization_id, kind, at, recorded_at, user_id, machine_id, machine_type, event_id) \
             ), types as ( \
                 insert into machine_types (id, name) \
                 select distinct machine_type_id(machine_type), machine_type from told \
                 where machine_type is not null \
                     and not exists (select 1 from machine_types where id = machine_type_id(machine_type)) \
                 order by 1 on conflict do nothing \
             ) \
             insert into job_moments \
                 (job_id, version, organization_id, kind, at, recorded_at, user_id, machine_id, machine_type, event_id) \
             select * from told on conflict do nothing";
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

/// A kind as it is kept.
pub(crate) const fn kind_number(kind: Kind) -> i16 {
    match kind {
        Kind::Started => 1,
        Kind::Completed => 2,
        Kind::GivenUp => 3,
    }
}

/// A moment as it is kept, with what is known about its job.
#[derive(Debug, Clone)]
struct KeptMoment {
    version: i64,
    organization: Uuid,
    kind: Kind,
    at: Timestamp,
    recorded_at: Timestamp,
    user: Option<Uuid>,
    machine: Option<Uuid>,
    machine_type: Option<Uuid>,
    configuration: Option<Uuid>,
}

impl Moment for KeptMoment {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn at(&self) -> Timestamp {
        self.at
    }
}

const MOMENTS: &str = "select m.job_id, m.version, m.organization_id, m.kind, m.at, m.recorded_at, m.user_id, m.machine_id, \
         machine_type_id(m.machine_type) as machine_type_id, j.configuration_id \
     from job_moments m left join metered_jobs j using (job_id) where m.job_id = any($1) order by m.job_id, m.version";

/// The runs that jobs' moments make, by job and number.
///
/// # Errors
/// When the database gives no answer.
pub async fn paired(
    connection: &mut PgConnection,
    jobs: &[Uuid],
) -> Result<BTreeMap<(Uuid, i64), KeptRun>, sqlx::Error> {
    Ok(runs_of(moments_of(&sqlx::query(MOMENTS).bind(jobs).fetch_all(connection).await?)?))
}

/// Jobs of which something was not known yet at an instant.
#[derive(Debug, Default)]
pub struct Known {
    /// The jobs, by id.
    pub jobs: Vec<Uuid>,
    /// The runs that their starts and ends make as far as they were known, by job and number.
    pub runs: Vec<KeptRun>,
}

/// What starts or ends after the last instant may still say which start an earlier end belongs to, so all that a job said counts; not
/// that of jobs that have said nothing up to there.
const OF_LATE: &str = "with late as ( \
         select distinct l.job_id from job_moments l where l.organization_id = $1 and l.recorded_at > $2 \
             and (l.at <= $3 or exists (select 1 from job_moments e where e.job_id = l.job_id and e.at <= $3)) \
     ) select m.job_id, m.version, m.organization_id, m.kind, m.at, m.recorded_at, m.user_id, m.machine_id, \
         machine_type_id(m.machine_type) as machine_type_id, j.configuration_id \
     from late join job_moments m using (job_id) left join metered_jobs j using (job_id) \
     order by m.job_id, m.version limit $4";

/// The jobs that started or ended up to and with `last` and of which something was recorded after `known_at`, with their runs as they
/// were known then.
///
/// # Errors
/// [`ReadError`], also when they have more than `limit` starts and ends.
pub async fn known_at(
    connection: &mut PgConnection,
    organization: Uuid,
    known_at: Timestamp,
    last: Timestamp,
    limit: i64,
) -> Result<Known, ReadError> {
    let query = sqlx::query(OF_LATE).bind(organization).bind(known_at.as_millis()).bind(last.as_millis());
    let rows = query.bind(limit.saturating_add(1)).fetch_all(connection).await?;
    bounded(rows.len(), limit, "starts and ends of jobs")?;
    let mut moments = moments_of(&rows)?;
    let jobs = moments.keys().copied().collect();
    for of_job in moments.values_mut() {
        of_job.retain(|moment| moment.recorded_at <= known_at);
    }
    Ok(Known { jobs, runs: runs_of(moments).into_values().collect() })
}

fn moments_of(rows: &[PgRow]) -> Result<BTreeMap<Uuid, Vec<KeptMoment>>, sqlx::Error> {
    let mut moments: BTreeMap<Uuid, Vec<KeptMoment>> = BTreeMap::new();
    for row in rows {
        let instant = |column: &str| row.try_get::<i64, _>(column).map(Timestamp::from_millis);
        moments.entry(row.try_get("job_id")?).or_default().push(KeptMoment {
            version: row.try_get("version")?,
            organization: row.try_get("organization_id")?,
            kind: match row.try_get::<i16, _>("kind")? {
                1 => Kind::Started,
                2 => Kind::Completed,
                _ => Kind::GivenUp,
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

fn runs_of(moments: BTreeMap<Uuid, Vec<KeptMoment>>) -> BTreeMap<(Uuid, i64), KeptRun> {
    let mut runs = BTreeMap::new();
    for (job, moments) in moments {
        for Pair { started, ended, last_start } in pair(moments) {
            let Some(first) = started.as_ref().or(ended.as_ref()) else { continue };
            let at = |moment: &Option<KeptMoment>| moment.as_ref().map(|moment| moment.at);
            let recorded = |moment: &Option<KeptMoment>| moment.as_ref().map(|moment| moment.recorded_at);
            let run = Run { started_at: at(&started), ended_at: at(&ended) };
            let kept = KeptRun {
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
            runs.insert((job, kept.number), kept);
        }
    }
    runs
}
