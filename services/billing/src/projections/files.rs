//! What each file used in a period, a page at a time.
//!
//! The problem: an organization has many files, most of which didn't change in the period or are long gone.
//!
//! The invariant: a file's area follows from its sums alone unless it changed on both sides of an edge of the period; only then
//! are its changes since that edge read. Files that may have held less than nothing are left to whoever computes them from
//! all their changes.

use epoch::Timestamp;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::{ReadError, bounded, sums::whole};
use crate::domain::{metering::LevelSums, span::Span};

/// A file of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSums {
    /// The file.
    pub file: Uuid,
    /// Its area in the span.
    pub byte_ms: i128,
    /// Whether it ever held less than nothing.
    pub negative: bool,
}

/// First those that are stored still, then those that were freed since, then those asked for by name.
const PAGE: &str = "with page as ( \
         (select file_id, s0, s1, first_at, last_at, lowest from metering_files \
             where organization_id = $1 and s0 <> 0 and file_id > $4 and first_at < $3 order by file_id limit $5) \
         union all \
         (select file_id, s0, s1, first_at, last_at, lowest from metering_files \
             where organization_id = $1 and s0 = 0 and last_at >= $2 and file_id > $4 and first_at < $3 \
             order by file_id limit $5) \
         union all \
         (select file_id, s0, s1, first_at, last_at, lowest from metering_files \
             where organization_id = $1 and file_id = any($6) and s0 = 0 and last_at < $2 and file_id > $4 \
             order by file_id limit $5) \
         order by file_id limit $5 \
     ) \
     select page.file_id, page.s0::text, page.s1::text, page.lowest < 0 as negative, \
         page.last_at < $2 as before, page.first_at >= $2 as since, \
         coalesce(later.start0, 0)::text as start0, coalesce(later.start1, 0)::text as start1, \
         coalesce(later.end0, 0)::text as end0, coalesce(later.end1, 0)::text as end1 \
     from page left join lateral ( \
         select sum(c.delta_bytes) as start0, sum(c.delta_bytes::numeric * c.at) as start1, \
             sum(c.delta_bytes) filter (where c.at >= $3) as end0, \
             sum(c.delta_bytes::numeric * c.at) filter (where c.at >= $3) as end1 \
         from storage_changes c where c.organization_id = $1 and c.file_id = page.file_id and c.at >= $2 \
     ) later on page.last_at >= $2 and (page.last_at >= $3 or page.first_at < $2) \
     order by page.file_id";

/// Up to `limit` files after `after` that may have been stored in the span, by id; those in `also` even if they seem not to.
///
/// # Errors
/// When the database gives no answer.
pub async fn page(
    connection: &mut PgConnection,
    organization: Uuid,
    span: Span,
    after: Option<Uuid>,
    limit: i64,
    also: &[Uuid],
) -> Result<Vec<FileSums>, sqlx::Error> {
    let (start, end) = (span.start(), span.end());
    let query = sqlx::query(PAGE).bind(organization).bind(start.as_millis()).bind(end.as_millis());
    let rows = query.bind(after.unwrap_or_default()).bind(limit).bind(also).fetch_all(connection).await?;
    let mut files = Vec::with_capacity(rows.len());
    for row in &rows {
        let all = LevelSums::of(whole(row, "s0")?, whole(row, "s1")?);
        let since_start = LevelSums::of(whole(row, "start0")?, whole(row, "start1")?);
        let since_end = LevelSums::of(whole(row, "end0")?, whole(row, "end1")?);
        let at_end = all.without(since_end);
        let at_start = match (row.try_get("before")?, row.try_get("since")?) {
            (true, _) => all,
            (false, true) => LevelSums::default(),
            (false, false) => all.without(since_start),
        };
        files.push(FileSums {
            file: row.try_get("file_id")?,
            byte_ms: at_end.area_until(end) - at_start.area_until(start),
            negative: row.try_get("negative")?,
        });
    }
    Ok(files)
}

/// The files that ever held less than nothing and were there before `end`, by id.
///
/// # Errors
/// [`ReadError`], also when there are more than `limit`.
pub async fn negative(
    connection: &mut PgConnection,
    organization: Uuid,
    end: Timestamp,
    limit: i64,
) -> Result<Vec<Uuid>, ReadError> {
    let query = "select file_id from metering_files \
         where organization_id = $1 and lowest < 0 and first_at < $2 order by file_id limit $3";
    let query = sqlx::query_scalar(query).bind(organization).bind(end.as_millis());
    let files: Vec<Uuid> = query.bind(limit.saturating_add(1)).fetch_all(connection).await?;
    bounded(files.len(), limit, "files with a negative level")?;
    Ok(files)
}
