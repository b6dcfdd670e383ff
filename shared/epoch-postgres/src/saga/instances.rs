//! The rows of saga instances.
//!
//! A missing row can't be locked, and two first events of one instance may arrive at once. The row is therefore
//! inserted and locked before anything is decided, and deleted again if the instance has not begun.

use std::collections::BTreeMap;

use epoch::{
    Metadata, Timestamp,
    saga::{InstanceOf, Phase, Saga},
};
use sqlx::{FromRow, PgConnection};

use crate::delivery::error::HandlerError;

const LOCK_OR_INSERT: &str = "select instance, phase, state_version, body, origin from epoch_lock_sagas($1, $2)";
const LOCK_IF_FREE: &str = include_str!("sql/lock_instance_if_free.sql");
const LOCK_EXISTING: &str = include_str!("sql/lock_instance.sql");
const WRITE: &str = include_str!("sql/write_instance.sql");

/// A locked instance.
pub(super) struct LockedInstance<S: Saga> {
    pub(super) instance: InstanceOf<S>,
    /// The metadata of the event that the instance began with.
    pub(super) origin: Option<Metadata>,
    /// Whether the row is more than a placeholder for the lock.
    pub(super) has_begun: bool,
    /// Whether the instance was completed before; it never changes then.
    pub(super) was_completed: bool,
}

#[derive(FromRow)]
struct InstanceRow {
    instance: String,
    phase: String,
    state_version: i32,
    body: Option<String>,
    origin: Option<String>,
}

/// Locks instances in ascending order of their keys; missing ones are inserted.
pub(super) async fn lock_or_insert<S: Saga>(
    connection: &mut PgConnection,
    keys: &[String],
) -> Result<BTreeMap<String, LockedInstance<S>>, HandlerError> {
    if keys.is_empty() {
        return Ok(BTreeMap::new());
    }
    let query = sqlx::query_as(LOCK_OR_INSERT).bind(S::NAME).bind(keys);
    let rows: Vec<InstanceRow> = query.fetch_all(connection).await?;
    rows.into_iter().map(|row| Ok((row.instance.clone(), decode::<S>(row)?))).collect()
}

/// Locks an instance. Returns `None` when another transaction has locked it, or when it is missing.
pub(super) async fn lock_if_free<S: Saga>(
    connection: &mut PgConnection,
    key: &str,
) -> Result<Option<LockedInstance<S>>, HandlerError> {
    lock_one::<S>(connection, LOCK_IF_FREE, key).await
}

/// Locks an instance, waiting for other transactions. Returns `None` when it is missing.
pub(super) async fn lock_existing<S: Saga>(
    connection: &mut PgConnection,
    key: &str,
) -> Result<Option<LockedInstance<S>>, HandlerError> {
    lock_one::<S>(connection, LOCK_EXISTING, key).await
}

async fn lock_one<S: Saga>(
    connection: &mut PgConnection,
    query: &'static str,
    key: &str,
) -> Result<Option<LockedInstance<S>>, HandlerError> {
    let row: Option<InstanceRow> = sqlx::query_as(query).bind(S::NAME).bind(key).fetch_optional(connection).await?;
    row.map(decode::<S>).transpose()
}

fn decode<S: Saga>(row: InstanceRow) -> Result<LockedInstance<S>, HandlerError> {
    let Some(body) = row.body else {
        let instance = InstanceOf::<S>::default();
        return Ok(LockedInstance { instance, origin: None, has_begun: false, was_completed: false });
    };
    let unreadable =
        |error| HandlerError::refused(format_args!("instance of saga {} can't be decoded: {error}", S::NAME));
    let was_completed = row.phase == "completed";
    let instance = if was_completed {
        // The state of a completed instance is not needed, so its version does not matter.
        InstanceOf::<S> { phase: Phase::Completed, ..InstanceOf::<S>::default() }
    } else if u32::try_from(row.state_version) == Ok(S::STATE_VERSION) {
        serde_json::from_str(&body).map_err(unreadable)?
    } else {
        upgrade::<S>(row.state_version, &body)?
    };
    let origin = row.origin.map(|origin| serde_json::from_str(&origin)).transpose().map_err(unreadable)?;
    Ok(LockedInstance { instance, origin, has_begun: true, was_completed })
}

fn upgrade<S: Saga>(version: i32, body: &str) -> Result<InstanceOf<S>, HandlerError> {
    let refused = |detail: &dyn std::fmt::Display| {
        HandlerError::refused(format_args!("instance of saga {} in version {version}: {detail}", S::NAME))
    };
    let mut body: serde_json::Value = serde_json::from_str(body).map_err(|error| refused(&error))?;
    let Some(state) = body.get_mut("state") else { return Err(refused(&"it has no state")) };
    let written = u32::try_from(version).map_err(|error| refused(&error))?;
    *state = S::upgrade(written, state.take()).ok_or_else(|| refused(&"it can't be upgraded"))?;
    serde_json::from_value(body).map_err(|error| refused(&error))
}

/// Writes a locked instance, or deletes its row if it has not begun.
pub(super) async fn write<S: Saga>(
    connection: &mut PgConnection,
    key: &str,
    locked: &LockedInstance<S>,
    now: Timestamp,
) -> Result<(), HandlerError> {
    if locked.was_completed {
        return Ok(());
    }
    let instance = &locked.instance;
    if !locked.has_begun && *instance == InstanceOf::<S>::default() {
        let query = "delete from sagas where saga = $1 and instance = $2";
        sqlx::query(query).bind(S::NAME).bind(key).execute(connection).await?;
        return Ok(());
    }
    let body = serde_json::to_string(instance).map_err(HandlerError::refused)?;
    let origin = locked.origin.as_ref().map(serde_json::to_string).transpose().map_err(HandlerError::refused)?;
    let version = i32::try_from(S::STATE_VERSION).map_err(HandlerError::refused)?;
    sqlx::query(WRITE)
        .bind(S::NAME)
        .bind(key)
        .bind(phase(instance.phase))
        .bind(version)
        .bind(body)
        .bind(origin)
        .bind(now.as_millis())
        .execute(connection)
        .await?;
    Ok(())
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Running => "running",
        Phase::Compensating => "compensating",
        Phase::Completed => "completed",
    }
}
