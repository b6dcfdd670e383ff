//! Errors of the read models, and bounds on what one question reads.

use http_kit::Problem;

/// Why a read model can't answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database gave no answer.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// There is more than is read at once.
    #[error("the question needs more than {limit} {what}; ask for a shorter period, or less at a time")]
    TooMuch {
        /// More of what.
        what: &'static str,
        /// The most that is read.
        limit: i64,
    },
}

/// Checks that no more was found than may be; who asks reads one more than the limit.
pub(crate) fn bounded(found: usize, limit: i64, what: &'static str) -> Result<(), ReadError> {
    match usize::try_from(limit) {
        Ok(most) if found <= most => Ok(()),
        _ => Err(ReadError::TooMuch { what, limit }),
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Sql(error) => error.into(),
            ReadError::TooMuch { .. } => Problem::unprocessable(error.to_string()),
        }
    }
}
