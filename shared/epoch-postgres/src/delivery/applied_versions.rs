//! How far a subscription is with many aggregates, as one transaction sees it.
//!
//! The problem: rows that a handler wrote can only be judged together with the versions that they were written for.
//!
//! The invariant: what is told is read on the caller's connection, so in its snapshot; it is that of the generation in use.

use std::collections::HashMap;

use epoch::{Version, gate::Cursor, store::StoreError};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::{database::error::store_error, database::rows::count, delivery::cursors::parked};

const REACHED: &str = "select c.aggregate_id, c.version, c.parked from unnest($3::uuid[]) as u (id) cross join lateral ( \
         select aggregate_id, version, parked from cursors where subscription = coalesce((select key from generations \
             where subscription = $1 and state = 'serving'), $1) and aggregate_id = u.id and aggregate = $2 \
     ) c";

/// The greatest id below a bound that the subscription has applied something of.
const NEWEST: &str = "select aggregate_id from cursors where subscription = coalesce((select key from generations \
         where subscription = $1 and state = 'serving'), $1) \
     and aggregate_id < $3 and aggregate = $2 and version > 0 order by aggregate_id desc limit 1";

/// How far `subscription` is with these aggregates; one that it has never heard of isn't in it.
///
/// # Errors
/// [`StoreError`] when the cursors can't be read.
pub async fn reached(
    connection: &mut PgConnection,
    subscription: &str,
    aggregate: &str,
    ids: &[Uuid],
) -> Result<HashMap<Uuid, Cursor>, StoreError> {
    let query = sqlx::query(REACHED).bind(subscription).bind(aggregate).bind(ids);
    let rows = query.fetch_all(connection).await.map_err(|error| store_error(&error))?;
    let mut cursors = HashMap::with_capacity(rows.len());
    for row in &rows {
        let read = || -> Result<(Uuid, i64, Option<String>), sqlx::Error> {
            Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
        };
        let (id, version, reason) = read().map_err(|error| store_error(&error))?;
        let cursor = Cursor { version: Version::new(count(version)?), parked: reason.as_deref().map(parked) };
        cursors.insert(id, cursor);
    }
    Ok(cursors)
}

/// The greatest id below `before` of which `subscription` has applied something.
///
/// # Errors
/// [`StoreError`] when the cursors can't be read.
pub async fn newest_reached(
    connection: &mut PgConnection,
    subscription: &str,
    aggregate: &str,
    before: Uuid,
) -> Result<Option<Uuid>, StoreError> {
    let query = sqlx::query_scalar(NEWEST).bind(subscription).bind(aggregate).bind(before);
    query.fetch_optional(connection).await.map_err(|error| store_error(&error))
}
