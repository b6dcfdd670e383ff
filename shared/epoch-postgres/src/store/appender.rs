//! Group commit.
//!
//! With one transaction per command, a server commits only as often as its disk flushes, and all writers queue for the
//! store's lock. One task per process therefore takes the appends that are waiting and writes them in one statement, in
//! the order of their arrival. It does not wait for further appends. Each append of a batch succeeds or fails
//! separately.

use std::time::Duration;

use epoch::store::{Append, AppendOutcome, StoreError};
use sqlx::{Connection, PgConnection, PgPool};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use crate::{
    database::{connect::dedicated_connection, error::store_error},
    store::{announcer::CommitAnnouncer, append::AppendResult, append_autocommit::append_autocommit, loader::Loader},
};

/// How many appends share a commit at most.
const MAX_BATCH: usize = 256;
/// How many appends the queue holds. Further callers wait for a place.
pub(crate) const QUEUE_CAPACITY: usize = 4_096;
/// How long a batch may take. After that its connection is discarded.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A command that waits to be appended, and the channel for its result.
pub(crate) struct AppendRequest {
    pub(crate) append: Append,
    pub(crate) reply: oneshot::Sender<Result<AppendOutcome, StoreError>>,
}

/// The task that appends and loads in groups for one [`PgStore`](crate::PgStore).
///
/// Ends after the last handle of the store is dropped and the waiting appends are written.
pub struct Appender {
    pub(crate) loader: Loader,
    pub(crate) pool: PgPool,
    pub(crate) requests: mpsc::Receiver<AppendRequest>,
    pub(crate) announcer: CommitAnnouncer,
}

impl Appender {
    /// Appends and loads until the last handle of the store is dropped.
    pub async fn run(self) {
        let Self { loader, pool, requests, announcer } = self;
        let mut loading = JoinSet::new();
        loading.spawn(loader.run());
        AppendLoop { pool, requests, announcer }.run().await;
        // The loader ends with the same last handle. Without a loader each load reads on its own.
        while loading.join_next().await.is_some() {}
    }
}

struct AppendLoop {
    pool: PgPool,
    requests: mpsc::Receiver<AppendRequest>,
    announcer: CommitAnnouncer,
}

impl AppendLoop {
    async fn run(mut self) {
        let mut connection: Option<PgConnection> = None;
        let mut batch: Vec<AppendRequest> = Vec::with_capacity(MAX_BATCH);
        let mut under_load = false;
        while self.requests.recv_many(&mut batch, MAX_BATCH).await > 0 {
            // Gather only under load: a lone request should not pay for the extra yield.
            if under_load || batch.len() > 1 {
                self.gather(&mut batch).await;
            }
            under_load = batch.len() > 1;
            // A command decided on the pending state of another must follow it in the batch.
            batch.sort_by_key(|request| request.append.expected);
            self.append(&mut connection, batch.drain(..)).await;
        }
        if let Some(connection) = connection {
            // Everything is committed, so an error on closing has no consequence.
            let _ = connection.close().await;
        }
    }

    /// Yields to the tasks that the last commit has woken, as long as they add requests. Otherwise they would just miss
    /// this commit and wait for the next one.
    async fn gather(&mut self, batch: &mut Vec<AppendRequest>) {
        let mut before = 0;
        while before < batch.len() && batch.len() < MAX_BATCH {
            before = batch.len();
            tokio::task::yield_now().await;
            while batch.len() < MAX_BATCH
                && let Ok(request) = self.requests.try_recv()
            {
                batch.push(request);
            }
        }
    }

    async fn append(&self, cached: &mut Option<PgConnection>, batch: impl Iterator<Item = AppendRequest>) {
        let (appends, replies): (Vec<Append>, Vec<_>) = batch.map(|request| (request.append, request.reply)).unzip();
        metrics::histogram!("epoch_append_batch_size").record(appends.len() as f64);
        match self.write(cached, &appends).await {
            Ok(outcomes) => {
                for (outcome, reply) in outcomes.into_iter().zip(replies) {
                    // The caller may have been cancelled; the append stays committed.
                    let _ = reply.send(Ok(self.announcer.appended(outcome)));
                }
            }
            Err(error) => {
                // The batch may have been committed before the connection was lost, so the connection is not reused.
                *cached = None;
                tracing::warn!(%error, appends = appends.len(), "append failed");
                for reply in replies {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }

    async fn write(
        &self,
        cached: &mut Option<PgConnection>,
        appends: &[Append],
    ) -> Result<Vec<AppendResult>, StoreError> {
        let connection = match cached {
            Some(connection) => connection,
            None => cached.insert(dedicated_connection(&self.pool).await.map_err(|error| store_error(&error))?),
        };
        tokio::time::timeout(TIMEOUT, append_autocommit(connection, appends))
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable { detail: "append timed out".to_owned() }))
    }
}
