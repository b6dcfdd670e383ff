//! Rows of instances.
//!
//! The problem: an instance that isn't there can't be locked, and two first events of it may come at once.
//! The invariant: the row is made and locked before anything is decided; one that came to nothing is taken back.

use std::collections::BTreeMap;

use epoch::{
    Timestamp,
    context::Metadata,
    saga::{InstanceOf, Phase, Saga},
};
use sqlx::{PgConnection, Row, postgres::PgRow};

use crate::delivery::handler::HandlerError;

const LOCK: &str = "select instance, phase, state_version, body, origin from epoch_lock_sagas($1, $2)";

const LOCK_IF_FREE: &str = "select instance, phase, state_version, body::text, origin::text from sagas \
     where saga = $1 and instance = $2 for update skip locked";

const LOCK_PRESENT: &str = "select instance, phase, state_version, body::text, origin::text from sagas \
     where saga = $1 and instance = $2 for update";

const WRITE: &str = "update sagas set phase = $3, state_version = $4, body = $5::json, origin = $6::json, \
     changed_at = $7 where saga = $1 and instance = $2";

/// A locked instance.
pub(super) struct Held<S: Saga> {
    pub(super) instance: InstanceOf<S>,
    pub(super) origin: Option<Metadata>,
    /// Whether it is more than a row that was made to be locked.
    pub(super) begun: bool,
    /// Whether it was completed before; then it stays as it is.
    pub(super) over: bool,
}

/// Locks instances, in ascending order of their keys.
pub(super) async fn lock<S: Saga>(
    connection: &mut PgConnection,
    keys: &[String],
) -> Result<BTreeMap<String, Held<S>>, HandlerError> {
    if keys.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = sqlx::query(LOCK).bind(S::NAME).bind(keys).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, read::<S>(row)?))).collect()
}

/// Locks an instance, unless another transaction has it or it isn't there.
pub(super) async fn lock_if_free<S: Saga>(
    connection: &mut PgConnection,
    key: &str,
) -> Result<Option<Held<S>>, HandlerError> {
    lock_one::<S>(connection, LOCK_IF_FREE, key).await
}

/// Locks an instance if it is there; waits for other transactions.
pub(super) async fn lock_present<S: Saga>(
    connection: &mut PgConnection,
    key: &str,
) -> Result<Option<Held<S>>, HandlerError> {
    lock_one::<S>(connection, LOCK_PRESENT, key).await
}

async fn lock_one<S: Saga>(
    connection: &mut PgConnection,
    query: &'static str,
    key: &str,
) -> Result<Option<Held<S>>, HandlerError> {
    let row = sqlx::query(query).bind(S::NAME).bind(key).fetch_optional(connection).await?;
    row.map(|row| read::<S>(&row)).transpose()
}

fn read<S: Saga>(row: &PgRow) -> Result<Held<S>, HandlerError> {
    let (phase, version): (String, i32) = (row.try_get(1)?, row.try_get(2)?);
    let (body, origin): (Option<String>, Option<String>) = (row.try_get(3)?, row.try_get(4)?);
    let Some(body) = body else {
        return Ok(Held { instance: InstanceOf::<S>::default(), origin: None, begun: false, over: false });
    };
    let unreadable = |error| HandlerError::refused(format_args!("instance of saga {} can't be read: {error}", S::NAME));
    let over = phase == "completed";
    let instance = if over {
        // Nothing of it is needed any more, whatever version it is of.
        InstanceOf::<S> { phase: Phase::Completed, ..InstanceOf::<S>::default() }
    } else if u32::try_from(version) == Ok(S::STATE_VERSION) {
        serde_json::from_str(&body).map_err(unreadable)?
    } else {
        upgrade::<S>(version, &body)?
    };
    let origin = origin.map(|origin| serde_json::from_str(&origin)).transpose().map_err(unreadable)?;
    Ok(Held { instance, origin, begun: true, over })
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

/// Writes a locked instance, or takes back one that hasn't begun.
pub(super) async fn write<S: Saga>(
    connection: &mut PgConnection,
    key: &str,
    held: &Held<S>,
    now: Timestamp,
) -> Result<(), HandlerError> {
    if held.over {
        return Ok(());
    }
    let instance = &held.instance;
    if !held.begun && *instance == InstanceOf::<S>::default() {
        let query = "delete from sagas where saga = $1 and instance = $2";
        sqlx::query(query).bind(S::NAME).bind(key).execute(connection).await?;
        return Ok(());
    }
    let body = serde_json::to_string(instance).map_err(HandlerError::refused)?;
    let origin = held.origin.as_ref().map(serde_json::to_string).transpose().map_err(HandlerError::refused)?;
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
