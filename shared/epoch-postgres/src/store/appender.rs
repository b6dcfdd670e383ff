//! Group commit.
//!
//! The problem: with one transaction per command, a server commits only as fast as its disk flushes, and every writer
//! queues for the store's lock.
//!
//! The invariant: one task per process takes what is waiting, never waits for more, and writes it in one statement, in the
//! order it came. Each append of it wins or loses by itself.

use std::time::Duration;

use epoch::{
    local::LocalBus,
    store::{Append, Appended, StoreError},
};
use sqlx::{Connection, PgConnection, PgPool};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

use crate::{
    database::connect::own_connection,
    database::error::store_error,
    store::append::{Outcome, append_alone},
    store::loader::Loader,
};

/// How many appends share a commit at most.
const BATCH: usize = 256;
/// How many appends may wait before callers wait too.
pub(crate) const QUEUE: usize = 4_096;
/// How long a batch may take before its connection is given up.
const LIMIT: Duration = Duration::from_secs(20);

/// One command waiting to be appended, and who waits for it.
pub(crate) struct Request {
    pub(crate) append: Append,
    pub(crate) answer: oneshot::Sender<Result<Appended, StoreError>>,
}

/// The task that appends, and loads for those who are about to; ends when the store is dropped everywhere, after what was waiting is
/// done.
pub struct Appender {
    pub(crate) loader: Loader,
    pub(crate) pool: PgPool,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) local: LocalBus,
    pub(crate) head: watch::Sender<u64>,
}

impl Appender {
    /// Appends and loads until the last handle of the store is gone.
    pub async fn run(self) {
        let Self { loader, pool, requests, local, head } = self;
        let mut loading = JoinSet::new();
        loading.spawn(loader.run());
        Appending { pool, requests, local, head }.run().await;
        // It ends for the same reason. Without it everybody loads alone.
        while loading.join_next().await.is_some() {}
    }
}

struct Appending {
    pool: PgPool,
    requests: mpsc::Receiver<Request>,
    local: LocalBus,
    head: watch::Sender<u64>,
}

impl Appending {
    async fn run(mut self) {
        let mut connection: Option<PgConnection> = None;
        let mut batch: Vec<Request> = Vec::with_capacity(BATCH);
        let mut company = false;
        while self.requests.recv_many(&mut batch, BATCH).await > 0 {
            // One who was alone the last time is probably alone again, and needn't wait for anybody.
            if company || batch.len() > 1 {
                self.gather(&mut batch).await;
            }
            company = batch.len() > 1;
            // A command that was decided on another one's events comes behind it.
            batch.sort_by_key(|request| request.append.expected);
            self.append(&mut connection, batch.drain(..)).await;
        }
        if let Some(connection) = connection {
            // Everything is committed; what the server thinks of the farewell changes nothing.
            let _ = connection.close().await;
        }
    }

    /// Lets those run that the last commit has woken, as long as they bring more: else they would come a moment late for this
    /// commit and wait for the next one.
    async fn gather(&mut self, batch: &mut Vec<Request>) {
        let mut before = 0;
        while before < batch.len() && batch.len() < BATCH {
            before = batch.len();
            tokio::task::yield_now().await;
            while batch.len() < BATCH
                && let Ok(request) = self.requests.try_recv()
            {
                batch.push(request);
            }
        }
    }

    async fn append(&self, held: &mut Option<PgConnection>, batch: impl Iterator<Item = Request>) {
        let (appends, answers): (Vec<Append>, Vec<_>) = batch.map(|request| (request.append, request.answer)).unzip();
        metrics::histogram!("epoch_append_batch_size").record(appends.len() as f64);
        match self.write(held, &appends).await {
            Ok(outcomes) => {
                for (outcome, answer) in outcomes.into_iter().zip(answers) {
                    // Whoever asked may have gone; what is committed is committed.
                    let _ = answer.send(Ok(self.appended(outcome)));
                }
            }
            Err(error) => {
                // The statement may have been committed before the connection was lost, so the connection is not used again.
                *held = None;
                tracing::warn!(%error, appends = appends.len(), "append failed");
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }

    async fn write(&self, held: &mut Option<PgConnection>, appends: &[Append]) -> Result<Vec<Outcome>, StoreError> {
        let connection = match held {
            Some(connection) => connection,
            None => held.insert(own_connection(&self.pool).await.map_err(|error| store_error(&error))?),
        };
        tokio::time::timeout(LIMIT, append_alone(connection, appends))
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable { detail: "append timed out".to_owned() }))
    }

    fn appended(&self, outcome: Outcome) -> Appended {
        match outcome {
            Outcome::Committed(events) => {
                let receipt = self.local.committed(&events);
                if let Some(last) = events.last() {
                    self.head.send_replace(last.position.get());
                }
                Appended::Committed { events, receipt }
            }
            Outcome::Conflict(actual) => Appended::Conflict { actual },
            Outcome::Repeated(record) => Appended::Repeated(record),
            Outcome::Reused => Appended::Reused,
        }
    }
}
