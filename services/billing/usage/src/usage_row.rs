//! Rows of the usage statements: one column list for all kinds of rows, and the decoding of each kind.
//!
//! The statements are unions, so that one round trip reads one consistent state. `row_kind` names the kind of a
//! row, and each kind uses these columns:
//!
//! | Kind | Columns |
//! |---|---|
//! | 1 rollup | `span_index` (0 before the first span), `subject_id`, `meter`, `scope`, `s0`, `s1` |
//! | 2 run, 3 run that may be anomalous | `subject_id` the job, `related_id` the user, `at` the start, `ended_at` |
//! | 4 file | `subject_id` the file, `byte_ms`, `flag` whether it was stored |
//! | 5 link | `subject_id` the file, `related_id` the job, `at`, `version`, `role`, `flag` whether it links |
//! | 6 change | `subject_id` the file, `at`, `delta_bytes` |
//! | 7 negative file | `subject_id` the file |
//! | 8 hidden file | none |
//! | 9 link of a shared file | as 5; `delta_bytes` and `held_since` if the level of the file is constant since then |
//! | 10 creation of a job | `subject_id` the job, `related_id` the user, `configuration_id` |
//! | 11 linked job | `subject_id` the job |

use epoch::Timestamp;
use rating::metering::{
    compute::JobRun,
    level::{LevelChange, LevelSums},
    run::Run,
};
use sqlx::{ColumnIndex, FromRow, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{read_models::file_links::LinkRecord, rollup::scope::Scope};

/// Positions of the columns. Decoding by position saves a lookup of the name for each value of each row.
pub(crate) mod column {
    pub(crate) const ROW_KIND: usize = 0;
    pub(crate) const SPAN_INDEX: usize = 1;
    pub(crate) const SUBJECT_ID: usize = 2;
    pub(crate) const RELATED_ID: usize = 3;
    pub(crate) const CONFIGURATION_ID: usize = 4;
    pub(crate) const METER: usize = 5;
    pub(crate) const SCOPE: usize = 6;
    pub(crate) const S0: usize = 7;
    pub(crate) const S1: usize = 8;
    pub(crate) const AT: usize = 9;
    pub(crate) const ENDED_AT: usize = 10;
    pub(crate) const VERSION: usize = 11;
    pub(crate) const ROLE: usize = 12;
    pub(crate) const DELTA_BYTES: usize = 13;
    pub(crate) const HELD_SINCE: usize = 14;
    pub(crate) const BYTE_MS: usize = 15;
    pub(crate) const FLAG: usize = 16;
}

/// The kind of a row, as numbered in the column `row_kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowKind {
    Rollup,
    Run,
    AnomalousRun,
    File,
    Link,
    Change,
    NegativeFile,
    HiddenFile,
    SharedLink,
    JobCreation,
    LinkedJob,
}

impl RowKind {
    /// Returns the kind of a row.
    ///
    /// # Errors
    /// [`sqlx::Error::Decode`] for an unknown number.
    pub(crate) fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        let kind: i32 = row.try_get(column::ROW_KIND)?;
        Ok(match kind {
            1 => Self::Rollup,
            2 => Self::Run,
            3 => Self::AnomalousRun,
            4 => Self::File,
            5 => Self::Link,
            6 => Self::Change,
            7 => Self::NegativeFile,
            8 => Self::HiddenFile,
            9 => Self::SharedLink,
            10 => Self::JobCreation,
            11 => Self::LinkedJob,
            _ => return Err(sqlx::Error::Decode(format!("unknown row kind {kind}").into())),
        })
    }
}

/// Sums of a rollup before the first span or within a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RollupRow {
    /// `None` for a scope that this version does not know.
    pub(crate) scope: Option<Scope>,
    pub(crate) subject: Uuid,
    pub(crate) span_index: i32,
    pub(crate) sums: LevelSums,
}

impl FromRow<'_, PgRow> for RollupRow {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let numbers: (i32, i32) = (row.try_get(column::METER)?, row.try_get(column::SCOPE)?);
        let scope = match (i16::try_from(numbers.0), i16::try_from(numbers.1)) {
            (Ok(meter), Ok(scope)) => Scope::of_numbers(meter, scope),
            _ => None,
        };
        Ok(Self {
            scope,
            subject: subject(row)?,
            span_index: row.try_get(column::SPAN_INDEX)?,
            sums: LevelSums::new(integer(row, column::S0)?, integer(row, column::S1)?),
        })
    }
}

/// A run of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunRow(pub(crate) JobRun<Uuid, Uuid>);

impl FromRow<'_, PgRow> for RunRow {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let instant = |column: usize| row.try_get::<Option<i64>, _>(column).map(|at| at.map(Timestamp::from_millis));
        let run = Run { started_at: instant(column::AT)?, ended_at: instant(column::ENDED_AT)? };
        Ok(Self(JobRun { job: subject(row)?, user: row.try_get(column::RELATED_ID)?, run }))
    }
}

/// A change of the size of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChangeRow {
    pub(crate) file: Uuid,
    pub(crate) change: LevelChange,
}

impl FromRow<'_, PgRow> for ChangeRow {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let change = LevelChange { at: instant(row, column::AT)?, delta: row.try_get(column::DELTA_BYTES)? };
        Ok(Self { file: subject(row)?, change })
    }
}

impl FromRow<'_, PgRow> for LinkRecord {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            file: subject(row)?,
            at: instant(row, column::AT)?,
            job: row.try_get(column::RELATED_ID)?,
            version: row.try_get(column::VERSION)?,
            role: row.try_get(column::ROLE)?,
            linked: row.try_get(column::FLAG)?,
        })
    }
}

/// Returns the file, the job or the rollup subject of a row.
pub(crate) fn subject(row: &PgRow) -> Result<Uuid, sqlx::Error> {
    row.try_get(column::SUBJECT_ID)
}

pub(crate) fn instant(row: &PgRow, column: usize) -> Result<Timestamp, sqlx::Error> {
    row.try_get(column).map(Timestamp::from_millis)
}

/// Decodes a `numeric` that was selected as text.
pub(crate) fn integer(row: &PgRow, column: impl ColumnIndex<PgRow>) -> Result<i128, sqlx::Error> {
    let text: &str = row.try_get(column)?;
    text.parse().map_err(|error: std::num::ParseIntError| sqlx::Error::Decode(error.into()))
}

/// Converts a page limit to a statement argument.
pub(crate) fn limit_argument(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
