//! Reading the cursors of many aggregates in a caller's transaction.
//!
//! Rows that a handler wrote can be interpreted only together with the versions they were written for. These functions
//! read the cursors of the serving generation on the caller's connection, and so in its snapshot.

use std::collections::HashMap;

use epoch::{gate::Cursor, store::StoreError};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use crate::{database::error::store_error, delivery::cursors::cursor};

#[derive(FromRow)]
struct AppliedRow {
    aggregate_id: Uuid,
    version: i64,
    parked: Option<String>,
}

/// Returns the cursors of `subscription` for these aggregates. An aggregate without a cursor is absent from the result.
///
/// # Errors
/// [`StoreError`] when the cursors can't be read.
pub async fn read_cursors(
    connection: &mut PgConnection,
    subscription: &str,
    aggregate: &str,
    ids: &[Uuid],
) -> Result<HashMap<Uuid, Cursor>, StoreError> {
    let query = sqlx::query_as(include_str!("sql/read_cursors.sql")).bind(subscription).bind(aggregate).bind(ids);
    let rows: Vec<AppliedRow> = query.fetch_all(connection).await.map_err(|error| store_error(&error))?;
    let cursors = rows.iter().map(|row| Ok((row.aggregate_id, cursor(row.version, row.parked.as_deref())?)));
    cursors.collect()
}

/// Returns the greatest id below `before` of which `subscription` has applied an event.
///
/// # Errors
/// [`StoreError`] when the cursors can't be read.
pub async fn last_applied_id(
    connection: &mut PgConnection,
    subscription: &str,
    aggregate: &str,
    before: Uuid,
) -> Result<Option<Uuid>, StoreError> {
    let query = sqlx::query_scalar(include_str!("sql/last_applied_id.sql"));
    let query = query.bind(subscription).bind(aggregate).bind(before);
    query.fetch_optional(connection).await.map_err(|error| store_error(&error))
}
