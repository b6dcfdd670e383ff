//! Reading the log.
//!
//! A stream may be longer than memory, its reader slower than the database, and connections are few. Streams are
//! therefore read in pages bounded in events and bytes, and no connection is held between pages. A task that executes
//! commands while it reads a stream can't block itself. A visit is one query, since its visitor never waits: it passes
//! the rows on as they arrive, and selects only the columns that a fold needs.

use epoch::{
    Bounds, Envelope, Position, Positions, Version, Versions,
    fold::StoredEvent,
    store::{StoreError, Streamer},
};
use futures::{
    FutureExt, StreamExt, TryStreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    database::{
        error::store_error,
        rows::{bigint, envelopes, unsigned},
    },
    store::{
        fold_columns::{FoldColumns, Visitor},
        loader::{self, LoadRange},
        pg_store::PgStore,
    },
};

pub(crate) const VISIT_STREAM: &str = include_str!("sql/visit_stream.sql");
pub(crate) const READ_STREAM_PAGE: &str = include_str!("sql/read_stream_page.sql");
pub(crate) const READ_LOG_PAGE: &str = include_str!("sql/read_log_page.sql");
pub(crate) const LOG_END: &str = "select position from events order by position desc limit 1";

/// How many events a page holds at most.
const PAGE_EVENTS: u64 = 1_000;
/// How many bytes of payloads a page holds at most, not counting its last event.
const PAGE_BYTES: i64 = 4 * 1024 * 1024;

/// Returns the inclusive upper bound as the database takes it.
fn upper_bound<P>(bounds: &Bounds<P>, get: impl Fn(&P) -> u64) -> i64 {
    bounds.up_to.as_ref().map_or(i64::MAX, |last| bigint(get(last)))
}

/// Passes a stream's events to `visit`, reading on the caller's connection.
pub(crate) async fn visit_stream(
    connection: &mut PgConnection,
    aggregate: &'static str,
    id: Uuid,
    bounds: Versions,
    visit: &mut Visitor<'_>,
) -> Result<(), StoreError> {
    let mut rows = sqlx::query(VISIT_STREAM)
        .bind(id)
        .bind(aggregate)
        .bind(bigint(bounds.after.get()))
        .bind(upper_bound(&bounds, |version: &Version| version.get()))
        .bind(bounds.limit.map(bigint))
        .fetch(connection);
    let mut columns = None;
    while let Some(row) = rows.try_next().await.map_err(|error| store_error(&error))? {
        let columns = match &columns {
            Some(columns) => columns,
            None => columns.insert(FoldColumns::locate(&row)?),
        };
        columns.visit(&row, visit)?;
    }
    Ok(())
}

/// Joins pages into a stream. `read_page` returns the next page of the bounds, with at most the given number of events.
fn paged<P, F>(
    bounds: Bounds<P>,
    place: impl Fn(&Envelope) -> P + Send + 'static,
    read_page: impl Fn(Bounds<P>, u64) -> F + Send + 'static,
) -> BoxStream<'static, Result<Envelope, StoreError>>
where
    P: Copy + Ord + Default + Send + 'static,
    F: Future<Output = Result<Vec<Envelope>, StoreError>> + Send,
{
    async_stream::try_stream! {
        let mut rest = bounds.rest(bounds.after, 0);
        while let Some(bounds) = rest {
            let limit = bounds.limit.unwrap_or(PAGE_EVENTS).min(PAGE_EVENTS);
            let events = read_page(bounds, limit).await?;
            let bytes: usize = events.iter().map(|event| event.payload.len()).sum();
            let is_last_page = (events.len() as u64) < limit && bigint(bytes as u64) < PAGE_BYTES;
            rest = events.last().and_then(|last| bounds.rest(place(last), events.len() as u64)).filter(|_| !is_last_page);
            for event in events {
                yield event;
            }
        }
    }
    .boxed()
}

impl PgStore {
    /// Returns up to `limit` events after the position `after`, in position order.
    pub(crate) async fn page(
        &self,
        aggregates: &[&'static str],
        after: Position,
        limit: i64,
    ) -> Result<Vec<Envelope>, StoreError> {
        let limit = u64::try_from(limit).unwrap_or(0);
        self.log_page(aggregates, Positions::since(after), limit).await
    }

    async fn log_page(
        &self,
        aggregates: &[&'static str],
        bounds: Positions,
        limit: u64,
    ) -> Result<Vec<Envelope>, StoreError> {
        let rows = sqlx::query(READ_LOG_PAGE)
            .bind(bigint(bounds.after.get()))
            .bind(upper_bound(&bounds, |position: &Position| position.get()))
            .bind(aggregates)
            .bind(bigint(limit))
            .bind(PAGE_BYTES)
            .fetch_all(self.pool())
            .await
            .map_err(|error| store_error(&error))?;
        envelopes(&rows)
    }

    async fn stream_page(
        &self,
        aggregate: &'static str,
        id: Uuid,
        bounds: Versions,
        limit: u64,
    ) -> Result<Vec<Envelope>, StoreError> {
        let rows = sqlx::query(READ_STREAM_PAGE)
            .bind(id)
            .bind(aggregate)
            .bind(bigint(bounds.after.get()))
            .bind(upper_bound(&bounds, |version: &Version| version.get()))
            .bind(bigint(limit))
            .bind(PAGE_BYTES)
            .fetch_all(self.pool())
            .await
            .map_err(|error| store_error(&error))?;
        envelopes(&rows)
    }

    async fn log_end(&self) -> Result<Position, StoreError> {
        let end: Option<i64> =
            sqlx::query_scalar(LOG_END).fetch_optional(self.pool()).await.map_err(|error| store_error(&error))?;
        end.map_or(Ok(Position::START), |end| unsigned(end).map(Position::new))
    }

    /// Visits the first events of a stream by a group load. Returns the bounds of the events left to read, if any.
    async fn visit_in_group(
        &self,
        aggregate: &'static str,
        id: Uuid,
        bounds: Versions,
        visit: &mut Visitor<'_>,
    ) -> Result<Option<Versions>, StoreError> {
        let Some(bounds) = bounds.rest(bounds.after, 0) else { return Ok(None) };
        if bounds.limit.is_some() {
            return Ok(Some(bounds));
        }
        let after = bigint(bounds.after.get());
        let up_to = upper_bound(&bounds, |version: &Version| version.get());
        let Some(loaded) = self.loader.load(LoadRange { aggregate, id, after, up_to }).await else {
            return Ok(Some(bounds));
        };
        let rows = loaded?;
        let Some(first) = rows.first() else { return Ok(None) };
        let columns = FoldColumns::locate(first)?;
        let (mut last_version, mut bytes) = (bounds.after, 0);
        for row in &rows {
            let event = columns.visit(row, visit)?;
            last_version = event.version;
            bytes += event.payload_bytes;
        }
        let is_complete = bigint(rows.len() as u64) < loader::MAX_EVENTS && bigint(bytes as u64) < loader::MAX_BYTES;
        Ok(if is_complete { None } else { bounds.rest(last_version, rows.len() as u64) })
    }
}

impl Streamer for PgStore {
    fn read(
        &self,
        aggregate: &'static str,
        id: Uuid,
        bounds: Versions,
    ) -> BoxStream<'static, Result<Envelope, StoreError>> {
        let store = self.clone();
        let read_page = move |bounds, limit| {
            let store = store.clone();
            async move { store.stream_page(aggregate, id, bounds, limit).await }
        };
        paged(bounds, |event| event.version, read_page)
    }

    fn read_all(
        &self,
        aggregates: &[&'static str],
        bounds: Positions,
    ) -> BoxStream<'static, Result<Envelope, StoreError>> {
        let (store, aggregates) = (self.clone(), aggregates.to_vec());
        async move {
            let bounds = bounds.up_to(store.log_end().await?);
            let read_page = move |bounds, limit| {
                let (store, aggregates) = (store.clone(), aggregates.clone());
                async move { store.log_page(&aggregates, bounds, limit).await }
            };
            Ok::<_, StoreError>(paged(bounds, |event| event.position, read_page))
        }
        .into_stream()
        .map(|opened| opened.unwrap_or_else(|error| stream::iter([Err(error)]).boxed()))
        .flatten()
        .boxed()
    }

    fn visit<'a>(
        &'a self,
        aggregate: &'static str,
        id: Uuid,
        bounds: Versions,
        visit: &'a mut (dyn FnMut(StoredEvent<'_>) -> Result<(), StoreError> + Send),
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            let Some(bounds) = self.visit_in_group(aggregate, id, bounds, visit).await? else { return Ok(()) };
            let mut connection = self.pool().acquire().await.map_err(|error| store_error(&error))?;
            visit_stream(&mut connection, aggregate, id, bounds, visit).await
        }
        .boxed()
    }
}
