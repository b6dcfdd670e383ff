//! The event store handle: [`PgStore`] appends events and reads states and command records.
//!
//! Many writers share one order. The module [`append`](crate::store::append) explains how it is kept,
//! [`streams`](crate::store::streams) how the log is read.

use epoch::{
    Aggregate, Envelope, VersionedState,
    fast_path::{FastPath, Receipt},
    state::{Change, StateStore},
    store::{Append, AppendOutcome, CommandLookup, StoreError},
};
use sqlx::{PgConnection, PgPool};
use std::sync::Arc;
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot, watch,
};
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    database::error::store_error,
    store::{
        announcer::CommitAnnouncer,
        append_with_state::append_with_state,
        appender::{AppendRequest, Appender, QUEUE_CAPACITY},
        commands::find_command,
        loader::LoaderHandle,
    },
};

/// An event store in one schema of a Postgres database. Cheap to clone.
#[derive(Clone)]
pub struct PgStore {
    pool: PgPool,
    requests: mpsc::Sender<AppendRequest>,
    pub(crate) loader: LoaderHandle,
    announcer: CommitAnnouncer,
}

impl PgStore {
    /// Creates a store and the task that appends for it. Run the task for as long as the store is used.
    ///
    /// The service's schema must be first in the search path of `pool`.
    #[must_use]
    pub fn new(pool: PgPool, local: FastPath) -> (Self, Appender) {
        let (requests, receiver) = mpsc::channel(QUEUE_CAPACITY);
        let announcer = CommitAnnouncer::new(local);
        let (handle, loader) = LoaderHandle::new(pool.clone());
        let appender = Appender { loader, pool: pool.clone(), requests: receiver, announcer: announcer.clone() };
        (Self { pool, requests, loader: handle, announcer }, appender)
    }

    /// Returns the connection pool.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Returns the dispatcher to the subscriptions of this process.
    #[must_use]
    pub fn local(&self) -> &FastPath {
        &self.announcer.local
    }

    /// Returns a receiver that changes whenever this process has committed events.
    pub(crate) fn head(&self) -> watch::Receiver<u64> {
        self.announcer.head()
    }

    /// Announces events that a [`PgTx`](crate::PgTx) has committed.
    pub(crate) fn announce(&self, events: &[Arc<Envelope>]) -> Receipt {
        self.announcer.announce(events)
    }
}

impl epoch::store::Appender for PgStore {
    type Executor = PgConnection;

    fn append(&self, append: Append) -> impl Future<Output = Result<AppendOutcome, StoreError>> + Send {
        let stopped = || StoreError::Unavailable { detail: "the appender has stopped".to_owned() };
        let (reply, received) = oneshot::channel();
        // Queued before the first await: appends keep the order of these calls.
        let sent = self.requests.try_send(AppendRequest { append, reply });
        async move {
            match sent {
                Ok(()) => {}
                Err(TrySendError::Full(request)) => self.requests.send(request).await.map_err(|_| stopped())?,
                Err(TrySendError::Closed(_)) => return Err(stopped()),
            }
            received.await.map_err(|_| stopped())?
        }
        .instrument(tracing::debug_span!("append"))
    }

    async fn append_with_state<A: Aggregate>(
        &self,
        append: Append,
        states: &dyn StateStore<A, PgConnection>,
        change: &Change<A>,
    ) -> Result<AppendOutcome, StoreError> {
        let appended = append_with_state(&self.pool, append, states, change);
        let outcome = appended.instrument(tracing::debug_span!("append")).await?;
        Ok(self.announcer.appended(outcome))
    }

    async fn read_state<A: Aggregate>(
        &self,
        states: &dyn StateStore<A, PgConnection>,
        id: Uuid,
    ) -> Result<Option<VersionedState<A>>, StoreError> {
        let mut connection = self.pool.acquire().await.map_err(|error| store_error(&error))?;
        states.get_by_id(&mut connection, id).await
    }

    async fn find_command(&self, id: Uuid, fingerprint: &[u8]) -> Result<Option<CommandLookup>, StoreError> {
        let mut connection = self.pool.acquire().await.map_err(|error| store_error(&error))?;
        find_command(&mut connection, id, fingerprint).await
    }
}
