//! Reading the log.
//!
//! The problem: a stream may be longer than memory, its reader slower than the store, and connections are few.
//!
//! The invariants: streams are read in pages that are bounded in events and in bytes, and between pages no connection is held:
//! who executes commands while reading never waits for itself. A visit, whose reader never waits, is one query whose rows are
//! shown as they come, and selects only what a fold needs.

use epoch::{
    Bounds, Envelope, Position, Positions, Version, Versions,
    event::SchemaId,
    fold::Recorded,
    store::{StoreError, Streamer},
};
use futures::{
    FutureExt, StreamExt, TryStreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    database::error::store_error,
    database::rows::{count, envelope, number},
    store::loader,
    store::loader::Load,
    store::pg_store::PgStore,
};

/// What a fold needs of one aggregate's events. The planner isn't shown the bounds: where it sees that much of a table is wanted,
/// it reads all of it and sorts, and the first event comes after the last was read.
pub(crate) const VISIT: &str = "select version, event_name, schema, payload from events where aggregate_id = $1 \
     and aggregate = $2 and version > (select $3::bigint) and version <= (select $4::bigint) \
     order by version limit (select $5::bigint)";

/// A page of one aggregate's events: as many as fit into the budget of bytes ($6), and at least one.
pub(crate) const STREAM: &str = "select position, aggregate, aggregate_id, version, event_id, event_name, schema, payload, \
     metadata, occurred_at, recorded_at from (\
     select *, sum(octet_length(payload)) over (order by version rows unbounded preceding) - octet_length(payload) as before \
     from events where aggregate_id = $1 and aggregate = $2 and version > $3 and version <= $4 order by version limit $5\
     ) page where before < $6 order by version";

/// The same of the whole log; the function's settings keep it on the primary key.
pub(crate) const STREAM_ALL: &str = "select position, aggregate, aggregate_id, version, event_id, event_name, schema, \
     payload, metadata, occurred_at, recorded_at from epoch_page($1, $2, $3, $4, $5)";

/// Where the log ends.
pub(crate) const END: &str = "select position from events order by position desc limit 1";

/// How many events are asked for at a time.
const PAGE: u64 = 1_000;
/// How many bytes of payloads, but for the last event.
const BUDGET: i64 = 4 * 1024 * 1024;

/// The first column of a query: what comes after `after` and up to here.
fn last<P>(bounds: &Bounds<P>, get: impl Fn(&P) -> u64) -> i64 {
    bounds.up_to.as_ref().map_or(i64::MAX, |last| number(get(last)))
}

/// Shows events to `visit`, on a connection of the caller.
pub(crate) async fn visit_on(
    connection: &mut PgConnection,
    aggregate: &'static str,
    id: Uuid,
    bounds: Versions,
    visit: &mut (dyn FnMut(Recorded<'_>) -> Result<(), StoreError> + Send),
) -> Result<(), StoreError> {
    let mut rows = sqlx::query(VISIT)
        .bind(id)
        .bind(aggregate)
        .bind(number(bounds.after.get()))
        .bind(last(&bounds, |version: &Version| version.get()))
        .bind(bounds.limit.map(number))
        .fetch(connection);
    while let Some(row) = rows.try_next().await.map_err(|error| store_error(&error))? {
        show(&row, 0, visit)?;
    }
    Ok(())
}

/// What a fold needs, from the column `first` on.
fn columns(row: &PgRow, first: usize) -> Result<(i64, &str, i64, &[u8]), sqlx::Error> {
    Ok((row.try_get(first)?, row.try_get(first + 1)?, row.try_get(first + 2)?, row.try_get(first + 3)?))
}

/// Shows one event; gives its version and how long its payload is.
fn show(
    row: &PgRow,
    first: usize,
    visit: &mut (dyn FnMut(Recorded<'_>) -> Result<(), StoreError> + Send),
) -> Result<(Version, usize), StoreError> {
    let (version, event_name, schema, payload) = columns(row, first).map_err(|error| store_error(&error))?;
    let version = Version::new(count(version)?);
    visit(Recorded { version, event_name, schema: SchemaId::new(schema.cast_unsigned()), payload })?;
    Ok((version, payload.len()))
}

/// Pages put together; `page` gives the next one, no longer than it is told.
fn paged<P, F>(
    bounds: Bounds<P>,
    place: impl Fn(&Envelope) -> P + Send + 'static,
    page: impl Fn(Bounds<P>, u64) -> F + Send + 'static,
) -> BoxStream<'static, Result<Envelope, StoreError>>
where
    P: Copy + Ord + Default + Send + 'static,
    F: Future<Output = Result<Vec<Envelope>, StoreError>> + Send,
{
    async_stream::try_stream! {
        let mut rest = bounds.rest(bounds.after, 0);
        while let Some(bounds) = rest {
            let limit = bounds.limit.unwrap_or(PAGE).min(PAGE);
            let events = page(bounds, limit).await?;
            let bytes: usize = events.iter().map(|event| event.payload.len()).sum();
            let over = (events.len() as u64) < limit && number(bytes as u64) < BUDGET;
            rest = events.last().and_then(|last| bounds.rest(place(last), events.len() as u64)).filter(|_| !over);
            for event in events {
                yield event;
            }
        }
    }
    .boxed()
}

impl PgStore {
    /// Up to `limit` events after `after`, in position order.
    pub(crate) async fn page(
        &self,
        aggregates: &[&'static str],
        after: Position,
        limit: i64,
    ) -> Result<Vec<Envelope>, StoreError> {
        let limit = u64::try_from(limit).unwrap_or(0);
        self.page_of_all(aggregates, Positions::since(after), limit).await
    }

    async fn page_of_all(
        &self,
        aggregates: &[&'static str],
        bounds: Positions,
        limit: u64,
    ) -> Result<Vec<Envelope>, StoreError> {
        let rows = sqlx::query(STREAM_ALL)
            .bind(number(bounds.after.get()))
            .bind(last(&bounds, |position: &Position| position.get()))
            .bind(aggregates)
            .bind(number(limit))
            .bind(BUDGET)
            .fetch_all(self.pool())
            .await
            .map_err(|error| store_error(&error))?;
        rows.iter().map(envelope).collect()
    }

    async fn page_of_one(
        &self,
        aggregate: &'static str,
        id: Uuid,
        bounds: Versions,
        limit: u64,
    ) -> Result<Vec<Envelope>, StoreError> {
        let rows = sqlx::query(STREAM)
            .bind(id)
            .bind(aggregate)
            .bind(number(bounds.after.get()))
            .bind(last(&bounds, |version: &Version| version.get()))
            .bind(number(limit))
            .bind(BUDGET)
            .fetch_all(self.pool())
            .await
            .map_err(|error| store_error(&error))?;
        rows.iter().map(envelope).collect()
    }

    async fn end(&self) -> Result<Position, StoreError> {
        let end: Option<i64> =
            sqlx::query_scalar(END).fetch_optional(self.pool()).await.map_err(|error| store_error(&error))?;
        end.map_or(Ok(Position::START), |end| count(end).map(Position::new))
    }
}

impl PgStore {
    /// Shows the first events, loaded together with what others wait for; gives what is left to be read.
    async fn visit_in_group(
        &self,
        aggregate: &'static str,
        id: Uuid,
        bounds: Versions,
        visit: &mut (dyn FnMut(Recorded<'_>) -> Result<(), StoreError> + Send),
    ) -> Result<Option<Versions>, StoreError> {
        let Some(bounds) = bounds.rest(bounds.after, 0) else { return Ok(None) };
        if bounds.limit.is_some() {
            return Ok(Some(bounds));
        }
        let (after, up_to) = (number(bounds.after.get()), last(&bounds, |version: &Version| version.get()));
        let Some(loaded) = self.loads.load(Load { aggregate, id, after, up_to }).await else { return Ok(Some(bounds)) };
        let rows = loaded?;
        let (mut reached, mut bytes) = (bounds.after, 0);
        for row in &rows {
            let (version, length) = show(row, 1, visit)?;
            reached = version;
            bytes += length;
        }
        let all = number(rows.len() as u64) < loader::SHORT && number(bytes as u64) < loader::BUDGET;
        Ok(if all { None } else { bounds.rest(reached, rows.len() as u64) })
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
        let page = move |bounds, limit| {
            let store = store.clone();
            async move { store.page_of_one(aggregate, id, bounds, limit).await }
        };
        paged(bounds, |event| event.version, page)
    }

    fn read_all(
        &self,
        aggregates: &[&'static str],
        bounds: Positions,
    ) -> BoxStream<'static, Result<Envelope, StoreError>> {
        let (store, aggregates) = (self.clone(), aggregates.to_vec());
        async move {
            let bounds = bounds.up_to(store.end().await?);
            let page = move |bounds, limit| {
                let (store, aggregates) = (store.clone(), aggregates.clone());
                async move { store.page_of_all(&aggregates, bounds, limit).await }
            };
            Ok::<_, StoreError>(paged(bounds, |event| event.position, page))
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
        visit: &'a mut (dyn FnMut(Recorded<'_>) -> Result<(), StoreError> + Send),
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            let Some(bounds) = self.visit_in_group(aggregate, id, bounds, visit).await? else { return Ok(()) };
            let mut connection = self.pool().acquire().await.map_err(|error| store_error(&error))?;
            visit_on(&mut connection, aggregate, id, bounds, visit).await
        }
        .boxed()
    }
}
