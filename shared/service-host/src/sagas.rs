//! The sagas of a service, with the workers that fire their timers and send their effects.
//!
//! The workers run in each process with the project role. They are supervised, and at shutdown they finish the work they have
//! started. A saga with effects can only be built with an [`EffectSender`].

use std::{convert::Infallible, sync::Arc, time::Duration};

use epoch::saga::{Never, Saga};
use epoch_postgres::{EffectSender, PgHandler, PgSaga, PgStore, SagaEffects, SagaTimers, saga};
use futures::{FutureExt, future::BoxFuture};
use tokio_util::sync::CancellationToken;

use crate::supervisor::Supervisor;

/// How often the backlog of timers and effects is reported.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);

type Worker = Arc<dyn Fn(PgStore, CancellationToken) -> BoxFuture<'static, ()> + Send + Sync>;

/// A saga with its handler and workers.
pub struct ServiceSaga {
    name: &'static str,
    handler: Arc<dyn PgHandler>,
    timers: Worker,
    effects: Option<Worker>,
}

impl ServiceSaga {
    /// Returns a saga whose effects `sender` performs.
    #[must_use]
    pub fn new<S: Saga>(saga: PgSaga<S>, sender: Arc<dyn EffectSender<S>>) -> Self {
        let saga = Arc::new(saga);
        let effects: Worker = {
            let saga = Arc::clone(&saga);
            Arc::new(move |store, stop| {
                SagaEffects::new(Arc::clone(&saga), store, Arc::clone(&sender)).run(stop).boxed()
            })
        };
        Self { effects: Some(effects), ..Self::with_timers(saga) }
    }

    /// Returns a saga that only executes commands of its own service.
    #[must_use]
    pub fn without_effects<S: Saga<Effect = Never>>(saga: PgSaga<S>) -> Self {
        Self::with_timers(Arc::new(saga))
    }

    fn with_timers<S: Saga>(saga: Arc<PgSaga<S>>) -> Self {
        let handler = Arc::clone(&saga) as Arc<dyn PgHandler>;
        let timers: Worker = Arc::new(move |store, stop| SagaTimers::new(Arc::clone(&saga), store).run(stop).boxed());
        Self { name: S::NAME, handler, timers, effects: None }
    }

    pub(crate) fn handler(&self) -> Arc<dyn PgHandler> {
        Arc::clone(&self.handler)
    }
}

/// Spawns the workers of a service's sagas.
pub(crate) fn run(service: &'static str, store: &PgStore, sagas: Vec<ServiceSaga>, supervisor: &mut Supervisor) {
    if sagas.is_empty() {
        return;
    }
    let names: Vec<&'static str> = sagas.iter().map(|saga| saga.name).collect();
    let mut workers: Vec<(String, Worker)> = Vec::new();
    for saga in sagas {
        workers.push((format!("{service}-{}-timers", saga.name), saga.timers));
        if let Some(effects) = saga.effects {
            workers.push((format!("{service}-{}-effects", saga.name), effects));
        }
    }
    let count: Worker = Arc::new(move |store, stop| {
        let names = names.clone();
        async move { saga::report_backlog(&store, &names, COUNT_INTERVAL, stop).await }.boxed()
    });
    workers.push((format!("{service}-saga-backlog"), count));
    for (name, worker) in workers {
        let store = store.clone();
        supervisor.spawn(name, move |stop| {
            // The worker stops after the work that it has started.
            let work = worker(store.clone(), stop);
            async move {
                work.await;
                Ok::<(), Infallible>(())
            }
        });
    }
}
