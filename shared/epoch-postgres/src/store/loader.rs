//! Group load.
//!
//! A command on an uncached aggregate reads a handful of events, and the round trip to the server costs more than the
//! reading. One task per process therefore takes the loads that are waiting and reads all of them in one query. It does
//! not wait for further loads. Each load returns at most [`MAX_EVENTS`] events and about [`MAX_BYTES`]; the caller
//! reads the rest of a longer stream separately. As in a separate query, a load sees every event committed before it
//! was requested.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use epoch::store::StoreError;
use sqlx::{Connection, PgConnection, PgPool, Row, postgres::PgRow};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::database::{connect::dedicated_connection, error::store_error, rows::place};

/// The first events of several streams, in no promised order.
pub(crate) const LOAD_STREAMS: &str = include_str!("sql/load_streams.sql");

/// How many events of one stream a group load reads.
pub(crate) const MAX_EVENTS: i64 = 128;
/// How many bytes of payloads a group load reads of one stream, not counting its last event.
pub(crate) const MAX_BYTES: i64 = 64 * 1024;
/// How many loads share a query at most.
const MAX_BATCH: usize = 64;
/// How many loads the queue holds. Further callers read on their own.
const QUEUE_CAPACITY: usize = 1_024;
/// How long a query may take. After that its connection is discarded.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The range of one stream to load.
pub(crate) struct LoadRange {
    pub(crate) aggregate: &'static str,
    pub(crate) id: Uuid,
    /// Exclusive lower bound of the versions.
    pub(crate) after: i64,
    /// Inclusive upper bound of the versions.
    pub(crate) up_to: i64,
}

struct LoadRequest {
    range: LoadRange,
    reply: oneshot::Sender<Result<Vec<PgRow>, StoreError>>,
}

/// Sends loads to the [`Loader`].
#[derive(Clone)]
pub(crate) struct LoaderHandle {
    requests: mpsc::Sender<LoadRequest>,
    running: Arc<AtomicBool>,
}

impl LoaderHandle {
    pub(crate) fn new(pool: PgPool) -> (Self, Loader) {
        let (requests, receiver) = mpsc::channel(QUEUE_CAPACITY);
        let running = Arc::new(AtomicBool::new(false));
        (Self { requests, running: Arc::clone(&running) }, Loader { pool, requests: receiver, running })
    }

    /// Returns the first rows of a stream in version order, or `None` when the loader is not running or its queue is
    /// full.
    pub(crate) async fn load(&self, range: LoadRange) -> Option<Result<Vec<PgRow>, StoreError>> {
        if !self.running.load(Ordering::Acquire) {
            return None;
        }
        let (reply, received) = oneshot::channel();
        self.requests.try_send(LoadRequest { range, reply }).ok()?;
        received.await.ok()
    }
}

/// The task that loads in groups. Ends when the last handle of the store is dropped.
pub(crate) struct Loader {
    pool: PgPool,
    requests: mpsc::Receiver<LoadRequest>,
    running: Arc<AtomicBool>,
}

impl Loader {
    pub(crate) async fn run(mut self) {
        self.running.store(true, Ordering::Release);
        let mut connection: Option<PgConnection> = None;
        let mut batch = Vec::with_capacity(MAX_BATCH);
        let mut under_load = false;
        while self.requests.recv_many(&mut batch, MAX_BATCH).await > 0 {
            if under_load || batch.len() > 1 {
                // The tasks that the last query has woken add their next loads now.
                tokio::task::yield_now().await;
                while batch.len() < MAX_BATCH
                    && let Ok(request) = self.requests.try_recv()
                {
                    batch.push(request);
                }
            }
            under_load = batch.len() > 1;
            batch.retain(|request| !request.reply.is_closed());
            self.serve(&mut connection, batch.drain(..)).await;
        }
        if let Some(connection) = connection {
            // No transaction is open, so an error on closing has no consequence.
            let _ = connection.close().await;
        }
    }

    async fn serve(&self, cached: &mut Option<PgConnection>, batch: impl Iterator<Item = LoadRequest>) {
        let (ranges, replies): (Vec<LoadRange>, Vec<_>) = batch.map(|request| (request.range, request.reply)).unzip();
        if ranges.is_empty() {
            return;
        }
        metrics::histogram!("epoch_load_batch_size").record(ranges.len() as f64);
        match self.load(cached, &ranges).await {
            Ok(streams) => {
                for (rows, reply) in streams.into_iter().zip(replies) {
                    // The caller may have been cancelled.
                    let _ = reply.send(Ok(rows));
                }
            }
            Err(error) => {
                *cached = None;
                for reply in replies {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }

    async fn load(
        &self,
        cached: &mut Option<PgConnection>,
        ranges: &[LoadRange],
    ) -> Result<Vec<Vec<PgRow>>, StoreError> {
        let connection = match cached {
            Some(connection) => connection,
            None => cached.insert(dedicated_connection(&self.pool).await.map_err(|error| store_error(&error))?),
        };
        let query = sqlx::query(LOAD_STREAMS)
            .bind(ranges.iter().map(|range| range.id).collect::<Vec<_>>())
            .bind(ranges.iter().map(|range| range.aggregate).collect::<Vec<_>>())
            .bind(ranges.iter().map(|range| range.after).collect::<Vec<_>>())
            .bind(ranges.iter().map(|range| range.up_to).collect::<Vec<_>>())
            .bind(MAX_EVENTS)
            .bind(MAX_BYTES);
        let rows = tokio::time::timeout(TIMEOUT, query.fetch_all(connection))
            .await
            .map_err(|_| StoreError::Unavailable { detail: "load timed out".to_owned() })?;
        rows.and_then(|rows| group_by_range(rows, ranges.len())).map_err(|error| store_error(&error))
    }
}

/// Groups the rows by their load, each group in version order.
fn group_by_range(rows: Vec<PgRow>, ranges: usize) -> Result<Vec<Vec<PgRow>>, sqlx::Error> {
    let mut streams: Vec<Vec<(i64, PgRow)>> = std::iter::repeat_with(Vec::new).take(ranges).collect();
    let Some(first) = rows.first() else { return Ok(std::iter::repeat_with(Vec::new).take(ranges).collect()) };
    let (range_number, version) = (place(first, "range_number")?, place(first, "version")?);
    for row in rows {
        let (number, version): (i64, i64) = (row.try_get(range_number)?, row.try_get(version)?);
        if let Some(stream) = usize::try_from(number - 1).ok().and_then(|index| streams.get_mut(index)) {
            stream.push((version, row));
        }
    }
    let in_version_order = |mut stream: Vec<(i64, PgRow)>| {
        // The rows arrive in order, but the query does not guarantee it.
        stream.sort_by_key(|(version, _)| *version);
        stream.into_iter().map(|(_, row)| row).collect()
    };
    Ok(streams.into_iter().map(in_version_order).collect())
}
