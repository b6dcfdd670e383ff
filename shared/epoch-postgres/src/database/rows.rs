//! Between rows and envelopes.
//!
//! The problem: events are read from three places (the log, dead letters, the bus table) and must look the same.
//! The invariant: a row gives back exactly the envelope that was written; numbers that can't be are an error, not wrapped.

use bytes::Bytes;
use epoch::{Envelope, Position, Timestamp, Version, context::Metadata, event::SchemaId, store::StoreError};
use sqlx::{Row, postgres::PgRow, types::Json};
use uuid::Uuid;

use crate::database::error::store_error;

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

/// The envelope of a row that begins with the log's columns in their order: position, aggregate, aggregate_id, version, event_id,
/// event_name, schema, payload, metadata, occurred_at, recorded_at. They are taken by number, which saves eleven look-ups a row.
pub(crate) fn envelope(row: &PgRow) -> Result<Envelope, StoreError> {
    let read = || -> Result<_, sqlx::Error> {
        let numbers: (i64, i64, i64) = (row.try_get(0)?, row.try_get(3)?, row.try_get(6)?);
        let instants: (i64, i64) = (row.try_get(9)?, row.try_get(10)?);
        let ids: (Uuid, Uuid) = (row.try_get(2)?, row.try_get(4)?);
        let names: (String, String) = (row.try_get(1)?, row.try_get(5)?);
        let bytes: (Vec<u8>, Json<Metadata>) = (row.try_get(7)?, row.try_get(8)?);
        Ok((numbers, instants, ids, names, bytes))
    };
    let ((position, version, schema), (occurred_at, recorded_at), (aggregate_id, event_id), names, (payload, metadata)) =
        read().map_err(|error| store_error(&error))?;
    let (aggregate, event_name) = names;
    Ok(Envelope {
        event_id,
        aggregate: aggregate.into(),
        aggregate_id,
        version: Version::new(count(version)?),
        position: Position::new(count(position)?),
        event_name: event_name.into(),
        schema: SchemaId::new(schema.cast_unsigned()),
        payload: Bytes::from(payload),
        occurred_at: Timestamp::from_millis(occurred_at),
        recorded_at: Timestamp::from_millis(recorded_at),
        metadata: metadata.0,
    })
}
