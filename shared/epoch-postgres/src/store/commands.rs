//! Records of idempotent commands.

use epoch::store::{CommandLookup, CommandRecord, StoreError};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use crate::database::{error::store_error, rows::version};

pub(crate) const FIND_COMMAND: &str = include_str!("sql/find_command.sql");

#[derive(FromRow)]
struct CommandRow {
    is_same_command: bool,
    aggregate_id: Uuid,
    version: i64,
}

/// Looks up the record of a command id and compares the fingerprints.
pub(crate) async fn find_command(
    connection: &mut PgConnection,
    id: Uuid,
    fingerprint: &[u8],
) -> Result<Option<CommandLookup>, StoreError> {
    let row = sqlx::query_as(FIND_COMMAND).bind(id).bind(fingerprint).fetch_optional(connection).await;
    let row: Option<CommandRow> = row.map_err(|error| store_error(&error))?;
    let Some(row) = row else { return Ok(None) };
    if !row.is_same_command {
        return Ok(Some(CommandLookup::Other));
    }
    let (aggregate_id, version) = (row.aggregate_id, version(row.version)?);
    Ok(Some(CommandLookup::Same(CommandRecord { aggregate_id, version })))
}
