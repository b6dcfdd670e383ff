//! Stored runs.

use std::collections::BTreeMap;

use epoch::Timestamp;
use rating::{
    calendar::span::Span,
    metering::{compute::JobRun, level::LevelChange, run::Run},
};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    read_error::{ReadError, check_limit},
    rollup::scope::Scope,
};

/// A run, with the times its events were recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedRun {
    pub run: JobRun<Uuid, Uuid>,
    /// When the start was recorded.
    pub started_recorded_at: Option<Timestamp>,
    /// When the end was recorded.
    pub ended_recorded_at: Option<Timestamp>,
}

/// A row of the table `runs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRecord {
    /// The version of the event that started the run, or of its end if it has no start.
    pub(super) number: i64,
    pub organization: Uuid,
    pub recorded: RecordedRun,
    /// The configuration of the job, if it is known.
    pub configuration: Option<Uuid>,
    pub machine: Option<Uuid>,
    pub machine_type: Option<Uuid>,
}

impl RunRecord {
    /// Lists the scopes and subjects of the rollups that include the run.
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

    /// Returns the changes of the number of running jobs: one at the start, one at the end.
    #[must_use]
    pub fn level_changes(run: Run) -> Vec<LevelChange> {
        let Some(started_at) = run.started_at else { return Vec::new() };
        let mut changes = vec![LevelChange { at: started_at, delta: 1 }];
        changes.extend(run.ended_at.map(|ended_at| LevelChange { at: ended_at.max(started_at), delta: -1 }));
        changes
    }
}

fn run_of_row(row: &PgRow) -> Result<RunRecord, sqlx::Error> {
    let instant = |column: &str| row.try_get::<Option<i64>, _>(column).map(|at| at.map(Timestamp::from_millis));
    let run = Run { started_at: instant("started_at")?, ended_at: instant("ended_at")? };
    Ok(RunRecord {
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

/// Returns the runs of jobs, by job and number.
///
/// # Errors
/// The database failed.
pub async fn runs_of_jobs(
    connection: &mut PgConnection,
    jobs: &[Uuid],
) -> Result<BTreeMap<(Uuid, i64), RunRecord>, sqlx::Error> {
    let mut runs = BTreeMap::new();
    for row in &sqlx::query("select * from runs where job_id = any($1)").bind(jobs).fetch_all(connection).await? {
        let run = run_of_row(row)?;
        runs.insert((run.recorded.run.job, run.number), run);
    }
    Ok(runs)
}

fn runs_of_rows(rows: &[PgRow]) -> Result<Vec<RunRecord>, sqlx::Error> {
    rows.iter().map(run_of_row).collect()
}

/// Returns the runs that started or ended in a span.
///
/// # Errors
/// [`ReadError`], also when there are more than `limit`.
pub async fn within(
    connection: &mut PgConnection,
    organization: Uuid,
    span: Span,
    limit: i64,
) -> Result<Vec<RunRecord>, ReadError> {
    let query = include_str!("runs_in_span.sql");
    let query = sqlx::query(query).bind(organization).bind(span.start().as_millis()).bind(span.end().as_millis());
    let runs = runs_of_rows(&query.bind(limit.saturating_add(1)).fetch_all(connection).await?)?;
    check_limit(runs.len(), limit, "runs")?;
    Ok(runs)
}
