//! Which streams there are, and where they end.
//!
//! The problem: who has a copy of what the log says can't see from the copy alone which streams it has never heard of; and a list of
//! streams must not cost as much as the log is long.
//!
//! The invariant: a page goes from id to id, two look-ups each, however long the streams are. Ids of other aggregates count among those
//! looked at, so that a page costs the same wherever it begins.

use epoch::{Timestamp, Version, store::StoreError};
use sqlx::Row;
use uuid::Uuid;

use crate::{database::error::store_error, database::rows::count, store::pg_store::PgStore};

pub(crate) const ENDS: &str = "with recursive ids as ( \
         (select aggregate_id, 1::bigint as number from events where aggregate_id > $2 order by aggregate_id limit 1) \
         union all \
         select (select e.aggregate_id from events e where e.aggregate_id > ids.aggregate_id order by e.aggregate_id limit 1), \
             number + 1 \
         from ids where ids.aggregate_id is not null and number < $3 \
     ) select ids.aggregate_id, ends.version, ends.recorded_at from ids left join lateral ( \
         select version, recorded_at from events e where e.aggregate_id = ids.aggregate_id and e.aggregate = $1 \
         order by version desc limit 1 \
     ) ends on true where ids.aggregate_id is not null order by ids.number";

/// Where a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamEnd {
    /// The aggregate's id.
    pub id: Uuid,
    /// Its last version.
    pub version: Version,
    /// When that was recorded.
    pub recorded_at: Timestamp,
}

/// Some of an aggregate's streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEnds {
    /// By id.
    pub ends: Vec<StreamEnd>,
    /// The id after which to go on; `None` when there is nothing more.
    pub next: Option<Uuid>,
}

impl PgStore {
    /// Where those streams of `aggregate` end whose id is greater than `after`. At most `limit` ids are looked at, those of other
    /// aggregates among them: a page may be empty and still not be the last one.
    ///
    /// # Errors
    /// [`StoreError`] when the log can't be read.
    pub async fn ends(&self, aggregate: &str, after: Uuid, limit: u32) -> Result<StreamEnds, StoreError> {
        let query = sqlx::query(ENDS).bind(aggregate).bind(after).bind(i64::from(limit));
        let rows = query.fetch_all(self.pool()).await.map_err(|error| store_error(&error))?;
        let (mut ends, mut last) = (Vec::with_capacity(rows.len()), None);
        for row in &rows {
            let read = || -> Result<(Uuid, Option<i64>, Option<i64>), sqlx::Error> {
                Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
            };
            let (id, version, recorded_at) = read().map_err(|error| store_error(&error))?;
            last = Some(id);
            if let (Some(version), Some(recorded_at)) = (version, recorded_at) {
                let (version, recorded_at) = (Version::new(count(version)?), Timestamp::from_millis(recorded_at));
                ends.push(StreamEnd { id, version, recorded_at });
            }
        }
        let full = u32::try_from(rows.len()).is_ok_and(|found| found >= limit);
        Ok(StreamEnds { ends, next: last.filter(|_| full) })
    }
}
