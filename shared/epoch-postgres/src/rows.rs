//! Between rows and envelopes.
//!
//! The problem: events are read from three places (the log, dead letters, the bus table) and must look the same.
//! The invariant: a row gives back exactly the envelope that was written; numbers that can't be are an error, not wrapped.

use bytes::Bytes;
use epoch::{Envelope, Position, Timestamp, Version, context::Metadata, event::SchemaId, store::StoreError};
use sqlx::{Row, postgres::PgRow, types::Json};
use uuid::Uuid;

use crate::error::store_error;

/// A database number as Epoch counts them.
pub(crate) fn count(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Refused { detail: format!("{number} is not a version or position") })
}

/// A version or position as the database counts them; beyond 2^63 there are none.
pub(crate) fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A schema as the database keeps it: the same 64 bits, with a sign.
pub(crate) fn schema_number(schema: SchemaId) -> i64 {
    schema.get().cast_signed()
}

/// The envelope of a row that has the log's columns.
pub(crate) fn envelope(row: &PgRow) -> Result<Envelope, StoreError> {
    let read = || -> Result<_, sqlx::Error> {
        let aggregate: String = row.try_get("aggregate")?;
        let event_name: String = row.try_get("event_name")?;
        let payload: Vec<u8> = row.try_get("payload")?;
        let metadata: Json<Metadata> = row.try_get("metadata")?;
        let versions: (i64, i64) = (row.try_get("version")?, row.try_get("position")?);
        let envelope = Envelope {
            event_id: row.try_get::<Uuid, _>("event_id")?,
            aggregate: aggregate.into(),
            aggregate_id: row.try_get::<Uuid, _>("aggregate_id")?,
            version: Version::ZERO,
            position: Position::START,
            event_name: event_name.into(),
            schema: SchemaId::new(row.try_get::<i64, _>("schema")?.cast_unsigned()),
            payload: Bytes::from(payload),
            occurred_at: Timestamp::from_millis(row.try_get("occurred_at")?),
            recorded_at: Timestamp::from_millis(row.try_get("recorded_at")?),
            metadata: metadata.0,
        };
        Ok((envelope, versions))
    };
    let (envelope, (version, position)) = read().map_err(|error| store_error(&error))?;
    Ok(Envelope { version: Version::new(count(version)?), position: Position::new(count(position)?), ..envelope })
}
