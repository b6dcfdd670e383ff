//! The streams of an aggregate and their last versions.
//!
//! A copy of the log can't see from its own rows which streams it has missed; this list shows them. A page costs two
//! look-ups per id, for any length of the streams. Ids of other aggregates count towards the page, so that it costs the
//! same at any place.

use epoch::{Timestamp, Version, store::StoreError};
use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    database::{error::store_error, rows::version},
    store::pg_store::PgStore,
};

pub(crate) const STREAM_ENDS: &str = include_str!("sql/stream_ends.sql");

/// The last event of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamEnd {
    /// The aggregate's id.
    pub id: Uuid,
    /// The version of its last event.
    pub version: Version,
    /// When the last event was recorded.
    pub recorded_at: Timestamp,
}

/// A page of an aggregate's streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEnds {
    /// The ends, ordered by id.
    pub ends: Vec<StreamEnd>,
    /// The id after which the next page starts; `None` on the last page.
    pub next: Option<Uuid>,
}

/// An id; version and time are null when its stream belongs to another aggregate.
#[derive(FromRow)]
struct StreamEndRow {
    aggregate_id: Uuid,
    version: Option<i64>,
    recorded_at: Option<i64>,
}

impl PgStore {
    /// Returns the ends of the streams of `aggregate` with ids greater than `after`.
    ///
    /// Reads at most `limit` ids, including ids of other aggregates. A page may therefore be empty without being the
    /// last.
    ///
    /// # Errors
    /// [`StoreError`] when the log can't be read.
    pub async fn ends(&self, aggregate: &str, after: Uuid, limit: u32) -> Result<StreamEnds, StoreError> {
        let query = sqlx::query_as(STREAM_ENDS).bind(aggregate).bind(after).bind(i64::from(limit));
        let rows: Vec<StreamEndRow> = query.fetch_all(self.pool()).await.map_err(|error| store_error(&error))?;
        let is_full = u32::try_from(rows.len()).is_ok_and(|rows| rows >= limit);
        let next = rows.last().map(|row| row.aggregate_id).filter(|_| is_full);
        let mut ends = Vec::with_capacity(rows.len());
        for row in rows {
            if let (Some(last), Some(recorded_at)) = (row.version, row.recorded_at) {
                let (version, recorded_at) = (version(last)?, Timestamp::from_millis(recorded_at));
                ends.push(StreamEnd { id: row.aggregate_id, version, recorded_at });
            }
        }
        Ok(StreamEnds { ends, next })
    }
}
