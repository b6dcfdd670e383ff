//! What the database says, and what that means.
//!
//! The problem: the same `sqlx::Error` can mean "try again", "wait for the server" and "this will never work".
//! The invariant: faults that pass are told from faults that don't in one place, here.

use epoch::store::StoreError;

/// Whether trying the same again may work: the server is away, busy, or another transaction was in the way.
#[must_use]
pub fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) => true,
        sqlx::Error::Database(database) => database.code().is_some_and(|code| is_transient_code(&code)),
        _ => false,
    }
}

/// What `epoch_enter` says when a subscription's generation has been replaced: ask for the one in use and try again.
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

/// The same as an error of the event store.
#[must_use]
pub fn store_error(error: &sqlx::Error) -> StoreError {
    let detail = error.to_string();
    if is_transient(error) { StoreError::Unavailable { detail } } else { StoreError::Refused { detail } }
}

/// Whether the transaction only met another one: a deadlock, a serialization failure, or a swap of generations.
pub(crate) fn is_race(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code.starts_with("40") || code == RETIRED)
}
