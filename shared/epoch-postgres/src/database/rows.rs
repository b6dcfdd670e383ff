//! Conversion between database values and Epoch's types.
//!
//! Events are read from the log and from the dead letters; both decode here. A number outside its range is an error and
//! is never wrapped.

use bytes::Bytes;
use epoch::{Envelope, Metadata, Position, Timestamp, Version, event::SchemaId, store::StoreError};
use sqlx::{Column, Row, postgres::PgRow, types::Json};
use uuid::Uuid;

use crate::database::error::store_error;

/// Converts a `bigint` into an unsigned version, position or count.
pub(crate) fn unsigned(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Refused { detail: format!("{number} is not a version or position") })
}

/// Converts a `bigint` into a version.
pub(crate) fn version(number: i64) -> Result<Version, StoreError> {
    unsigned(number).map(Version::new)
}

/// Converts a version, position or count into a `bigint`, capped at its maximum.
pub(crate) fn bigint(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Returns the schema's 64 bits as the signed number that the database stores.
pub(crate) fn schema_bigint(schema: SchemaId) -> i64 {
    schema.get().cast_signed()
}

/// Returns the place of the column `name` in the rows of a result.
///
/// Results of many rows are decoded by place: a look-up by name hashes the name again for each column of each row.
pub(crate) fn place(row: &PgRow, name: &str) -> Result<usize, sqlx::Error> {
    Ok(row.try_column(name)?.ordinal())
}

/// Decodes rows that have the log's columns into envelopes.
pub(crate) fn envelopes(rows: &[PgRow]) -> Result<Vec<Envelope>, StoreError> {
    let Some(first) = rows.first() else { return Ok(Vec::new()) };
    let columns = EnvelopeColumns::locate(first).map_err(|error| store_error(&error))?;
    rows.iter().map(|row| columns.envelope(row)).collect()
}

/// The places of the log's columns in a result.
struct EnvelopeColumns {
    position: usize,
    aggregate: usize,
    aggregate_id: usize,
    version: usize,
    event_id: usize,
    event_name: usize,
    schema: usize,
    payload: usize,
    metadata: usize,
    occurred_at: usize,
    recorded_at: usize,
}

impl EnvelopeColumns {
    fn locate(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            position: place(row, "position")?,
            aggregate: place(row, "aggregate")?,
            aggregate_id: place(row, "aggregate_id")?,
            version: place(row, "version")?,
            event_id: place(row, "event_id")?,
            event_name: place(row, "event_name")?,
            schema: place(row, "schema")?,
            payload: place(row, "payload")?,
            metadata: place(row, "metadata")?,
            occurred_at: place(row, "occurred_at")?,
            recorded_at: place(row, "recorded_at")?,
        })
    }

    fn envelope(&self, row: &PgRow) -> Result<Envelope, StoreError> {
        let number = |place: usize| row.try_get::<i64, _>(place).map_err(|error| store_error(&error));
        let id = |place: usize| row.try_get::<Uuid, _>(place).map_err(|error| store_error(&error));
        let text = |place: usize| row.try_get::<String, _>(place).map_err(|error| store_error(&error));
        let payload: Vec<u8> = row.try_get(self.payload).map_err(|error| store_error(&error))?;
        let Json(metadata): Json<Metadata> = row.try_get(self.metadata).map_err(|error| store_error(&error))?;
        Ok(Envelope {
            event_id: id(self.event_id)?,
            aggregate: text(self.aggregate)?.into(),
            aggregate_id: id(self.aggregate_id)?,
            version: version(number(self.version)?)?,
            position: Position::new(unsigned(number(self.position)?)?),
            event_name: text(self.event_name)?.into(),
            schema: SchemaId::new(number(self.schema)?.cast_unsigned()),
            payload: Bytes::from(payload),
            occurred_at: Timestamp::from_millis(number(self.occurred_at)?),
            recorded_at: Timestamp::from_millis(number(self.recorded_at)?),
            metadata,
        })
    }
}
