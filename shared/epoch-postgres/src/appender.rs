//! Group commit.
//!
//! The problem: with one transaction per command, a server commits only as fast as its disk flushes, and every writer
//! queues for the store's lock.
//!
//! The invariant: one task per process takes what is waiting, never waits for more, and writes it in one statement. At most
//! one append per aggregate and per command id goes into a batch, so that each is judged against committed events.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use epoch::{
    local::LocalBus,
    store::{Append, Appended, StoreError},
};
use sqlx::{PgPool, Postgres, pool::PoolConnection};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    append::{Outcome, append_batch},
    error::store_error,
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

/// The task that appends; ends when the store is dropped everywhere, after what was waiting is done.
pub struct Appender {
    pub(crate) pool: PgPool,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) local: LocalBus,
    pub(crate) head: watch::Sender<u64>,
}

impl Appender {
    /// Appends until the last handle of the store is gone.
    pub async fn run(mut self) {
        let mut connection: Option<PoolConnection<Postgres>> = None;
        let mut waiting: VecDeque<Request> = VecDeque::new();
        let mut arrived: Vec<Request> = Vec::with_capacity(BATCH);
        loop {
            if waiting.is_empty() && self.requests.recv_many(&mut arrived, BATCH).await == 0 {
                return;
            }
            while arrived.len() < BATCH
                && let Ok(request) = self.requests.try_recv()
            {
                arrived.push(request);
            }
            waiting.extend(arrived.drain(..));
            let batch = take_batch(&mut waiting);
            self.append(&mut connection, batch).await;
        }
    }

    async fn append(&self, held: &mut Option<PoolConnection<Postgres>>, batch: Vec<Request>) {
        let (appends, answers): (Vec<Append>, Vec<_>) =
            batch.into_iter().map(|request| (request.append, request.answer)).unzip();
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
                if let Some(connection) = held.take() {
                    drop(connection.detach());
                }
                tracing::warn!(%error, appends = appends.len(), "append failed");
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }

    async fn write(
        &self,
        held: &mut Option<PoolConnection<Postgres>>,
        appends: &[Append],
    ) -> Result<Vec<Outcome>, StoreError> {
        let connection = match held {
            Some(connection) => connection,
            None => held.insert(self.pool.acquire().await.map_err(|error| store_error(&error))?),
        };
        tokio::time::timeout(LIMIT, append_batch(connection, appends))
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

/// Takes the first of each aggregate and of each command id; the others keep their order for the next batch.
fn take_batch(waiting: &mut VecDeque<Request>) -> Vec<Request> {
    let mut streams = HashSet::new();
    let mut commands = HashSet::new();
    let mut batch = Vec::with_capacity(waiting.len().min(BATCH));
    let mut later = VecDeque::new();
    for request in waiting.drain(..) {
        let append = &request.append;
        let first = batch.len() < BATCH
            && !streams.contains(&(append.aggregate, append.aggregate_id))
            && !commands.contains(&append.context.command_id);
        streams.insert((append.aggregate, append.aggregate_id));
        commands.insert(append.context.command_id);
        if first { batch.push(request) } else { later.push_back(request) }
    }
    *waiting = later;
    batch
}

#[cfg(test)]
mod tests {
    use epoch::{CommandContext, Version};
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn request(aggregate: u128, command: u128) -> Request {
        let mut context = CommandContext::new();
        context.command_id = Uuid::from_u128(command);
        let append = Append {
            aggregate: "a",
            aggregate_id: Uuid::from_u128(aggregate),
            expected: Version::ZERO,
            events: vec![],
            context,
        };
        Request { append, answer: oneshot::channel().0 }
    }

    proptest! {
        #[test]
        fn batches_keep_the_order_of_each_aggregate_and_command(keys in prop::collection::vec((0..6_u128, 0..40_u128), 0..600)) {
            let mut waiting: VecDeque<_> = keys.iter().map(|&(aggregate, command)| request(aggregate, command)).collect();
            let mut written = Vec::new();
            while !waiting.is_empty() {
                let batch: Vec<_> = take_batch(&mut waiting)
                    .iter()
                    .map(|request| (request.append.aggregate_id.as_u128(), request.append.context.command_id.as_u128()))
                    .collect();
                prop_assert!(!batch.is_empty() && batch.len() <= BATCH);
                let distinct = |part: fn(&(u128, u128)) -> u128| batch.iter().map(part).collect::<HashSet<_>>().len();
                prop_assert_eq!(distinct(|key| key.0), batch.len());
                prop_assert_eq!(distinct(|key| key.1), batch.len());
                written.extend(batch);
            }
            for aggregate in 0..6 {
                let of = |keys: &[(u128, u128)]| -> Vec<_> {
                    keys.iter().filter(|key| key.0 == aggregate).copied().collect()
                };
                prop_assert_eq!(of(&written), of(&keys));
            }
        }
    }
}
