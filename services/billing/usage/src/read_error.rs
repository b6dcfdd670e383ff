//! Errors of the read models, and limits of a single query.

use http_kit::Problem;

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database failed.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// The query exceeds a limit.
    #[error("the query needs more than {limit} {what}: request a shorter period or smaller pages")]
    LimitExceeded {
        /// The limited kind of rows.
        what: &'static str,
        limit: i64,
    },
}

/// Checks a count against a limit. Statements read one row more than the limit, so that an excess shows.
pub(crate) fn check_limit(count: usize, limit: i64, what: &'static str) -> Result<(), ReadError> {
    match usize::try_from(limit) {
        Ok(most) if count <= most => Ok(()),
        _ => Err(ReadError::LimitExceeded { what, limit }),
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Sql(error) => error.into(),
            ReadError::LimitExceeded { .. } => Problem::unprocessable(error.to_string()),
        }
    }
}
