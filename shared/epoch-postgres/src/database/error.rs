//! Classification of database errors: transient, conflict or permanent.

use epoch::store::StoreError;

/// Returns whether the same operation may succeed later: the server is away or busy, or another transaction interfered.
#[must_use]
pub fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) => true,
        sqlx::Error::Database(database) => database.code().is_some_and(|code| is_transient_code(&code)),
        _ => false,
    }
}

/// Raised by `epoch_enter` when the subscription's generation has been replaced. A retry looks up the serving
/// generation.
const RETIRED: &str = "EP001";

/// Source: PostgreSQL 15 documentation, appendix A, "PostgreSQL Error Codes".
fn is_transient_code(code: &str) -> bool {
    const CLASSES: [&str; 4] = [
        "08", // connection exception
        "40", // transaction rollback: serialization failure, deadlock
        "53", // insufficient resources
        "57", // operator intervention: shutdown, crash, starting up, query cancelled
    ];
    code == RETIRED || CLASSES.iter().any(|class| code.starts_with(class))
}

/// Converts a database error into a [`StoreError`]: `Unavailable` when it is [transient](is_transient), else `Refused`.
#[must_use]
pub fn store_error(error: &sqlx::Error) -> StoreError {
    let detail = error.to_string();
    if is_transient(error) { StoreError::Unavailable { detail } } else { StoreError::Refused { detail } }
}

/// Returns whether another transaction was the cause: a deadlock, a serialization failure, or a swap of generations.
pub(crate) fn is_conflict(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code.starts_with("40") || code == RETIRED)
}
