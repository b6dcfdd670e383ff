//! Runs as they are kept.

use std::collections::BTreeMap;

use epoch::Timestamp;
use rating::{
    calendar::span::Span,
    metering::{compute::JobRun, level::LevelChange, run::Run},
};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    read_error::{ReadError, bounded},
    rollup::sums::Scope,
};

/// A run, and when it was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedRun {
    /// From when to when, and whose.
    pub run: JobRun<Uuid, Uuid>,
    /// When it was recorded that it started.
    pub started_recorded_at: Option<Timestamp>,
    /// When it was recorded that it ended.
    pub ended_recorded_at: Option<Timestamp>,
}

/// A run as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRun {
    /// The version of the event that began it, or of its end if it never began.
    pub(super) number: i64,
    /// Its organization.
    pub organization: Uuid,
    /// From when to when, whose, and when that was recorded.
    pub recorded: RecordedRun,
    /// The configuration of its job, if that is known.
    pub configuration: Option<Uuid>,
    /// Where it ran.
    pub machine: Option<Uuid>,
    /// On which type of machine.
    pub machine_type: Option<Uuid>,
}

impl KeptRun {
    /// In whose sums it counts.
    #[must_use]
    pub fn subjects(&self) -> [(Scope, Option<Uuid>); 5] {
        [
            (Scope::Running, None),
            (Scope::RunningByUser, self.recorded.run.user),
            (Scope::RunningByConfiguration, self.configuration),
            (Scope::RunningByMachine, self.machine),
            (Scope::RunningByMachineType, self.machine_type),
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
        number: row.try_get("number")?,
        organization: row.try_get("organization_id")?,
        recorded: RecordedRun {
            run: JobRun { job: row.try_get("job_id")?, user: row.try_get("user_id")?, run },
            started_recorded_at: instant("started_recorded_at")?,
            ended_recorded_at: instant("ended_recorded_at")?,
        },
        configuration: row.try_get("configuration_id")?,
        machine: row.try_get("machine_id")?,
        machine_type: row.try_get("machine_type_id")?,
    })
}

/// The runs of jobs, by job and number.
///
/// # Errors
/// When the database gives no answer.
pub async fn of_jobs(
    connection: &mut PgConnection,
    jobs: &[Uuid],
) -> Result<BTreeMap<(Uuid, i64), KeptRun>, sqlx::Error> {
    let mut runs = BTreeMap::new();
    for row in &sqlx::query("select * from runs where job_id = any($1)").bind(jobs).fetch_all(connection).await? {
        let run = kept(row)?;
        runs.insert((run.recorded.run.job, run.number), run);
    }
    Ok(runs)
}

fn all_kept(rows: &[PgRow]) -> Result<Vec<KeptRun>, sqlx::Error> {
    rows.iter().map(kept).collect()
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
