//! Running a handler for one generation of its tables.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use epoch::Batch;

use crate::{
    delivery::{
        error::HandlerError,
        generations::{self, Generation},
        guard::guarded,
        handler::PgHandler,
        progress::Progress,
    },
    store::pg_store::PgStore,
    transaction::pg_tx::PgTx,
};

const DEADLINE: Duration = Duration::from_secs(30);

/// A handler, the schema it writes to, and the generation it works for.
#[derive(Clone)]
pub(crate) struct HandlerRunner {
    pub(crate) handler: Arc<dyn PgHandler>,
    pub(crate) store: PgStore,
    pub(crate) progress: Progress,
    /// The handler's name, or the key of a generation that is being built.
    pub(crate) name: Arc<str>,
    /// The last known generation. The gate checks it in each transaction.
    generation: Arc<Mutex<Option<Generation>>>,
    pub(crate) deadline: Duration,
}

impl HandlerRunner {
    /// Creates a runner for the serving generation.
    pub(crate) fn new(handler: Arc<dyn PgHandler>, store: PgStore, progress: Progress) -> Self {
        let name = handler.name().into();
        Self { handler, store, progress, name, generation: Arc::default(), deadline: DEADLINE }
    }

    /// Returns a runner for a generation that is being built; the search path of `store` starts with its schema.
    pub(crate) fn for_generation(&self, handler: Arc<dyn PgHandler>, store: PgStore, generation: Generation) -> Self {
        Self {
            handler,
            store,
            progress: self.progress.clone(),
            name: Arc::clone(&generation.key),
            generation: Arc::new(Mutex::new(Some(generation))),
            deadline: self.deadline,
        }
    }

    fn is_serving(&self) -> bool {
        *self.name == *self.handler.name()
    }

    pub(crate) async fn generation(&self) -> Result<Generation, HandlerError> {
        if let Some(known) = &*self.generation.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(known.clone());
        }
        let serving = generations::serving(self.store.pool(), &*self.handler, self.deadline).await?;
        *self.generation.lock().unwrap_or_else(PoisonError::into_inner) = Some(serving.clone());
        Ok(serving)
    }

    /// Forgets the serving generation after a conflict, which may have been a swap. The next attempt looks it up.
    pub(crate) fn forget_generation(&self) {
        if self.is_serving() {
            *self.generation.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// Returns the key of its cursors and dead letters, for a handler of any revision.
    pub(crate) async fn key(&self) -> Result<String, sqlx::Error> {
        if self.is_serving() {
            generations::serving_key(self.store.pool(), &self.name).await
        } else {
            Ok(self.name.to_string())
        }
    }

    /// Runs the handler within its deadline; a panic is an error.
    pub(crate) async fn apply(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        if events.is_empty() {
            return Ok(());
        }
        guarded(self.deadline, self.handler.handle(tx, events)).await
    }
}
