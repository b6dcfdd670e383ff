//! A service's sagas: the workers beside their subscriptions.
//!
//! The problem: a saga is more than a handler. Somebody must remind it of its timers and empty its outbox, or it stands still
//! without an error.
//!
//! The invariant: a saga comes with its workers ([`ServiceSaga`]), which run wherever its service projects: supervised, counted,
//! and at shutdown they finish what they have begun. A saga that has effects can't be made without somebody who sends them.

use std::{convert::Infallible, sync::Arc, time::Duration};

use epoch::saga::{Never, Saga};
use epoch_postgres::{EffectSender, PgHandler, PgSaga, PgStore, SagaEffects, SagaTimers, saga};
use futures::{FutureExt, future::BoxFuture};
use tokio_util::sync::CancellationToken;

use crate::supervisor::Supervisor;

/// How often it is counted what waits.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);

type Worker = Arc<dyn Fn(PgStore, CancellationToken) -> BoxFuture<'static, ()> + Send + Sync>;

/// A saga with all that it takes to run it.
pub struct ServiceSaga {
    name: &'static str,
    handler: Arc<dyn PgHandler>,
    timers: Worker,
    effects: Option<Worker>,
}

impl ServiceSaga {
    /// A saga whose effects `sender` has.
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

    /// A saga that commands aggregates of its own service only.
    #[must_use]
    pub fn without_effects<S: Saga<Effect = Never>>(saga: PgSaga<S>) -> Self {
        Self::with_timers(Arc::new(saga))
    }

    fn with_timers<S: Saga>(saga: Arc<PgSaga<S>>) -> Self {
        let handler = Arc::clone(&saga) as Arc<dyn PgHandler>;
        let timers: Worker = Arc::new(move |store, stop| SagaTimers::new(Arc::clone(&saga), store).run(stop).boxed());
        Self { name: S::NAME, handler, timers, effects: None }
    }

    /// The handler of its subscription.
    pub(crate) fn handler(&self) -> Arc<dyn PgHandler> {
        Arc::clone(&self.handler)
    }
}

/// Starts the workers of a service's sagas.
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
            // It ends by itself when told to, after what it has begun.
            let ended = worker(store.clone(), stop);
            async move {
                ended.await;
                Ok::<(), Infallible>(())
            }
        });
    }
}
