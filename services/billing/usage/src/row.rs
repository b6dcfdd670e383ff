//! Rows of the usage statements: their columns and how values are decoded.

use epoch::Timestamp;
use rating::metering::{compute::JobRun, run::Run};
use sqlx::{ColumnIndex, Row, postgres::PgRow};
use uuid::Uuid;

/// The columns of each statement that has it in it, by place: names would be looked up for each value of each row.
pub(crate) const PART: usize = 0;
pub(crate) const PLACE: usize = 1;
pub(crate) const ID: usize = 2;
pub(crate) const OTHER: usize = 3;
pub(crate) const A: usize = 4;
pub(crate) const B: usize = 5;
pub(crate) const X: usize = 6;
pub(crate) const Y: usize = 7;
pub(crate) const SAID: usize = 8;

/// The part of the rows of sums.
pub(crate) const PART_OF_SUMS: i32 = 1;

pub(crate) fn at_most(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// A `numeric` that was selected as text.
pub(crate) fn whole(row: &PgRow, column: impl ColumnIndex<PgRow>) -> Result<i128, sqlx::Error> {
    let text: &str = row.try_get(column)?;
    text.parse().map_err(|error: std::num::ParseIntError| sqlx::Error::Decode(error.into()))
}

/// The run that a row tells.
pub(crate) fn run(row: &PgRow, job: Uuid) -> Result<JobRun<Uuid, Uuid>, sqlx::Error> {
    let instant = |column: usize| row.try_get::<Option<i64>, _>(column).map(|at| at.map(Timestamp::from_millis));
    let run = Run { started_at: instant(A)?, ended_at: instant(B)? };
    Ok(JobRun { job, user: row.try_get(OTHER)?, run })
}
