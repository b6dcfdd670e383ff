//! Decoding the columns that a fold needs: version, event name, schema and payload.

use epoch::{Version, event::SchemaId, fold::StoredEvent, store::StoreError};
use sqlx::{Row, postgres::PgRow};

use crate::database::{
    error::store_error,
    rows::{place, version},
};

/// The callback that a visit passes each event to.
pub(crate) type Visitor<'a> = dyn FnMut(StoredEvent<'_>) -> Result<(), StoreError> + Send + 'a;

/// An event passed to a visitor.
pub(crate) struct VisitedEvent {
    pub(crate) version: Version,
    pub(crate) payload_bytes: usize,
}

/// The places of a fold's columns in a result, located once per result.
pub(crate) struct FoldColumns {
    version: usize,
    event_name: usize,
    schema: usize,
    payload: usize,
}

impl FoldColumns {
    pub(crate) fn locate(row: &PgRow) -> Result<Self, StoreError> {
        let locate = || -> Result<Self, sqlx::Error> {
            Ok(Self {
                version: place(row, "version")?,
                event_name: place(row, "event_name")?,
                schema: place(row, "schema")?,
                payload: place(row, "payload")?,
            })
        };
        locate().map_err(|error| store_error(&error))
    }

    /// Passes the event of a row to `visit`. The payload is borrowed from the row.
    pub(crate) fn visit(&self, row: &PgRow, visit: &mut Visitor<'_>) -> Result<VisitedEvent, StoreError> {
        let number = |place: usize| row.try_get::<i64, _>(place).map_err(|error| store_error(&error));
        let version = version(number(self.version)?)?;
        let schema = SchemaId::new(number(self.schema)?.cast_unsigned());
        let event_name: &str = row.try_get(self.event_name).map_err(|error| store_error(&error))?;
        let payload: &[u8] = row.try_get(self.payload).map_err(|error| store_error(&error))?;
        visit(StoredEvent { version, event_name, schema, payload })?;
        Ok(VisitedEvent { version, payload_bytes: payload.len() })
    }
}
