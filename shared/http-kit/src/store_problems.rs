//! Conversions of event store and database errors into problems.

use std::time::Duration;

use epoch::{ExecuteError, store::StoreError};
use epoch_postgres::{TransactionError, TxError};

use crate::problem::{IntoProblem, Problem};

impl<E: IntoProblem + std::error::Error> From<ExecuteError<E>> for Problem {
    fn from(error: ExecuteError<E>) -> Self {
        match error {
            ExecuteError::Rejected(rejection) => rejection.into_problem(),
            ExecuteError::Conflict { .. } => contended(error.to_string()),
            ExecuteError::Stale { .. } => Problem::stale(error.to_string()),
            ExecuteError::CommandReused { .. } => {
                Problem::unprocessable("the Idempotency-Key was used before for a request with another body")
                    .of_kind("/problems/idempotency-key-reused", "idempotency key reused")
            }
            ExecuteError::Store(error) => error.into(),
        }
    }
}

impl<E: IntoProblem + std::error::Error> From<TransactionError<E>> for Problem {
    fn from(error: TransactionError<E>) -> Self {
        match error {
            TransactionError::Execute(error) => error.into(),
            TransactionError::Tx(error) => error.into(),
            TransactionError::Store(error) => error.into(),
            TransactionError::Sql(error) => error.into(),
        }
    }
}

impl From<TxError> for Problem {
    fn from(error: TxError) -> Self {
        match error {
            TxError::Conflict { .. } => contended(error.to_string()),
            // The text of the database is not for clients.
            _ if error.is_conflict() => {
                contended("every attempt conflicted with another change; repeat the same request")
            }
            TxError::Repeated { .. } => Problem::internal(error),
            TxError::Store(error) => error.into(),
            TxError::Sql(error) => error.into(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { detail } => store_unavailable(&detail),
            StoreError::Codec(_) | StoreError::Refused { .. } => Problem::internal(error),
        }
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::RowNotFound => Problem::not_found("the resource does not exist"),
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                store_unavailable(&error.to_string())
            }
            sqlx::Error::Database(cause) if cause.code().is_some_and(|code| is_transient(&code)) => {
                store_unavailable(&error.to_string())
            }
            _ => Problem::internal(error),
        }
    }
}

/// Returns whether a statement that failed with this SQLSTATE may succeed when it is repeated.
fn is_transient(code: &str) -> bool {
    const SHUTTING_DOWN: [&str; 3] = ["57P01", "57P02", "57P03"];
    const TOO_MANY_CONNECTIONS: &str = "53300";
    const SERIALIZATION_FAILURE_OR_DEADLOCK: [&str; 2] = ["40001", "40P01"];
    let connection_exception = code.starts_with("08");
    connection_exception
        || code == TOO_MANY_CONNECTIONS
        || SHUTTING_DOWN.contains(&code)
        || SERIALIZATION_FAILURE_OR_DEADLOCK.contains(&code)
}

/// Returns the 409 for a command whose every attempt conflicted with another change.
fn contended(detail: impl Into<String>) -> Problem {
    Problem::conflict(detail)
        .of_kind("/problems/contended", "conflict with concurrent changes")
        .retry_after(Duration::from_secs(1))
}

/// Returns a 503. The cause, which may contain addresses, is only logged.
fn store_unavailable(cause: &str) -> Problem {
    tracing::warn!(error = cause, "event store is unavailable");
    Problem::unavailable("the event store is unavailable; repeat the same request later")
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use epoch::{ExecuteError, Version, store::StoreError};
    use epoch_postgres::TxError;
    use uuid::Uuid;

    use super::{IntoProblem, Problem, is_transient};

    #[derive(Debug, thiserror::Error)]
    #[error("the job is running")]
    struct Rejection;

    impl IntoProblem for Rejection {
        fn into_problem(self) -> Problem {
            Problem::conflict(self.to_string())
        }
    }

    #[test]
    fn command_errors_map_to_problems() {
        let (id, expected, actual) = (Uuid::nil(), Version::new(1), Version::new(2));
        let cases: [(ExecuteError<Rejection>, u16, &str); 6] = [
            (ExecuteError::Rejected(Rejection), 409, "/problems/conflict"),
            (ExecuteError::Conflict { aggregate: "job", id, expected, actual }, 409, "/problems/contended"),
            (ExecuteError::Stale { aggregate: "job", id, expected, actual }, 412, "/problems/stale"),
            (ExecuteError::CommandReused { command_id: id }, 422, "/problems/idempotency-key-reused"),
            (StoreError::Unavailable { detail: "10.0.0.1".into() }.into(), 503, "/problems/unavailable"),
            (StoreError::Refused { detail: "10.0.0.1".into() }.into(), 500, "/problems/internal"),
        ];
        for (error, status, kind) in cases {
            let problem = Problem::from(error);
            assert_eq!((problem.status().as_u16(), problem.kind()), (status, kind));
            assert!(!problem.detail().contains("10.0.0.1"));
        }
    }

    #[test]
    fn transaction_errors_map_to_problems() {
        let (id, expected, actual) = (Uuid::nil(), Version::new(1), Version::new(2));
        let cases: [(TxError, u16, &str, bool); 5] = [
            (TxError::Conflict { aggregate: "job", id, expected, actual }, 409, "/problems/contended", true),
            (TxError::Repeated { command_id: id }, 409, "/problems/contended", true),
            (StoreError::Unavailable { detail: "10.0.0.1".into() }.into(), 503, "/problems/unavailable", true),
            (StoreError::Refused { detail: "10.0.0.1".into() }.into(), 500, "/problems/internal", false),
            (sqlx::Error::PoolTimedOut.into(), 503, "/problems/unavailable", true),
        ];
        for (error, status, kind, has_retry_after) in cases {
            let problem = Problem::from(error);
            assert_eq!((problem.status().as_u16(), problem.kind()), (status, kind));
            assert!(!problem.detail().contains("10.0.0.1"));
            assert_eq!(problem.into_response().headers().contains_key("retry-after"), has_retry_after, "{kind}");
        }
    }

    #[test]
    fn query_errors_map_to_problems() {
        let cases = [
            (sqlx::Error::RowNotFound, 404),
            (sqlx::Error::PoolTimedOut, 503),
            (sqlx::Error::PoolClosed, 503),
            (sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into()), 503),
            (sqlx::Error::ColumnNotFound("name".into()), 500),
        ];
        for (error, status) in cases {
            assert_eq!(Problem::from(error).status().as_u16(), status);
        }
    }

    #[test]
    fn transient_sqlstates_are_recognized() {
        assert!(["57P01", "57P02", "57P03", "53300", "08006", "08003", "40001"].iter().all(|code| is_transient(code)));
        assert!(!["23505", "42P01", "22P02", "0"].iter().any(|code| is_transient(code)));
    }
}
