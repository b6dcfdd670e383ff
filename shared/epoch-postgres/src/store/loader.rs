//! Group load.
//!
//! The problem: a command on an aggregate that isn't cached reads a handful of events, and the round trip to the server costs more
//! than the reading.
//!
//! The invariant: one task per process takes the loads that are waiting, never waits for more, and asks for all of them in one
//! query, each at most [`SHORT`] events and some bytes; who has more reads on by itself. A load sees what was committed before it
//! was asked for, as it would alone.

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

use crate::{database::connect::own_connection, database::error::store_error};

/// The first events of several streams; a stream's own order is that of its versions.
pub(crate) const VISIT_MANY: &str = "select k.n, e.version, e.event_name, e.schema, e.payload \
     from unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[]) with ordinality as k (id, aggregate, after, up_to, n), \
     lateral (\
     select *, sum(octet_length(payload)) over (order by version rows unbounded preceding) - octet_length(payload) as before \
     from (select version, event_name, schema, payload from events \
     where aggregate_id = k.id and aggregate = k.aggregate and version > k.after and version <= k.up_to \
     order by version limit $5) as first) as e \
     where e.before < $6";

/// How many events of one stream a group takes.
pub(crate) const SHORT: i64 = 128;
/// How many bytes of payloads of one stream, but for the last event.
pub(crate) const BUDGET: i64 = 64 * 1024;
/// How many loads share a query at most.
const BATCH: usize = 64;
/// How many loads may wait; beyond that, each reads by itself.
const QUEUE: usize = 1_024;
/// How long a query may take before its connection is given up.
const LIMIT: Duration = Duration::from_secs(20);

/// Events of one stream that somebody waits for.
pub(crate) struct Load {
    pub(crate) aggregate: &'static str,
    pub(crate) id: Uuid,
    /// Versions after this one …
    pub(crate) after: i64,
    /// … and up to this one.
    pub(crate) up_to: i64,
}

struct Request {
    load: Load,
    answer: oneshot::Sender<Result<Vec<PgRow>, StoreError>>,
}

/// Where loads are handed in.
#[derive(Clone)]
pub(crate) struct Loads {
    requests: mpsc::Sender<Request>,
    /// Whether somebody takes them.
    running: Arc<AtomicBool>,
}

impl Loads {
    pub(crate) fn new(pool: PgPool) -> (Self, Loader) {
        let (requests, receiver) = mpsc::channel(QUEUE);
        let running = Arc::new(AtomicBool::new(false));
        (Self { requests, running: Arc::clone(&running) }, Loader { pool, requests: receiver, running })
    }

    /// The first events of a stream, as rows of version, name, schema and payload from the second column on; `None` when there
    /// is nobody or no room to load in a group.
    pub(crate) async fn load(&self, load: Load) -> Option<Result<Vec<PgRow>, StoreError>> {
        if !self.running.load(Ordering::Acquire) {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        self.requests.try_send(Request { load, answer }).ok()?;
        answered.await.ok()
    }
}

/// The task that loads; ends when the store is dropped everywhere.
pub(crate) struct Loader {
    pool: PgPool,
    requests: mpsc::Receiver<Request>,
    running: Arc<AtomicBool>,
}

impl Loader {
    pub(crate) async fn run(mut self) {
        self.running.store(true, Ordering::Release);
        let mut connection: Option<PgConnection> = None;
        let mut batch = Vec::with_capacity(BATCH);
        let mut company = false;
        while self.requests.recv_many(&mut batch, BATCH).await > 0 {
            if company || batch.len() > 1 {
                // Those that the last query has woken come in a moment.
                tokio::task::yield_now().await;
                while batch.len() < BATCH
                    && let Ok(request) = self.requests.try_recv()
                {
                    batch.push(request);
                }
            }
            company = batch.len() > 1;
            batch.retain(|request| !request.answer.is_closed());
            self.answer(&mut connection, batch.drain(..)).await;
        }
        if let Some(connection) = connection {
            // Nothing is open; what the server thinks of the farewell changes nothing.
            let _ = connection.close().await;
        }
    }

    async fn answer(&self, held: &mut Option<PgConnection>, batch: impl Iterator<Item = Request>) {
        let (loads, answers): (Vec<Load>, Vec<_>) = batch.map(|request| (request.load, request.answer)).unzip();
        if loads.is_empty() {
            return;
        }
        metrics::histogram!("epoch_load_batch_size").record(loads.len() as f64);
        match self.load(held, &loads).await {
            Ok(streams) => {
                for (rows, answer) in streams.into_iter().zip(answers) {
                    // Whoever asked may have gone.
                    let _ = answer.send(Ok(rows));
                }
            }
            Err(error) => {
                *held = None;
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }

    async fn load(&self, held: &mut Option<PgConnection>, loads: &[Load]) -> Result<Vec<Vec<PgRow>>, StoreError> {
        let connection = match held {
            Some(connection) => connection,
            None => held.insert(own_connection(&self.pool).await.map_err(|error| store_error(&error))?),
        };
        let query = sqlx::query(VISIT_MANY)
            .bind(loads.iter().map(|load| load.id).collect::<Vec<_>>())
            .bind(loads.iter().map(|load| load.aggregate).collect::<Vec<_>>())
            .bind(loads.iter().map(|load| load.after).collect::<Vec<_>>())
            .bind(loads.iter().map(|load| load.up_to).collect::<Vec<_>>())
            .bind(SHORT)
            .bind(BUDGET);
        let rows = tokio::time::timeout(LIMIT, query.fetch_all(connection))
            .await
            .map_err(|_| StoreError::Unavailable { detail: "load timed out".to_owned() })?;
        share_out(rows, loads.len()).map_err(|error| store_error(&error))
    }
}

/// Gives each load its rows, in the order of versions.
fn share_out(rows: Result<Vec<PgRow>, sqlx::Error>, loads: usize) -> Result<Vec<Vec<PgRow>>, sqlx::Error> {
    let mut streams: Vec<Vec<(i64, PgRow)>> = std::iter::repeat_with(Vec::new).take(loads).collect();
    for row in rows? {
        let (n, version): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        if let Some(stream) = usize::try_from(n - 1).ok().and_then(|n| streams.get_mut(n)) {
            stream.push((version, row));
        }
    }
    let in_order = |mut stream: Vec<(i64, PgRow)>| {
        // They come in order; nothing promises it.
        stream.sort_by_key(|(version, _)| *version);
        stream.into_iter().map(|(_, row)| row).collect()
    };
    Ok(streams.into_iter().map(in_order).collect())
}
