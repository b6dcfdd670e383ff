//! Read models of billing, fed with events at recording times that the test chooses.

use std::{collections::BTreeMap, sync::Arc};

use billing::BillingService;
use epoch::{
    CommandContext, DomainEvent, Envelope, FastPath, Position, Timestamp, Version, gate::DeliverySource,
    handler::Subscription, store::NewEvent,
};
use epoch_postgres::{PgHandler, PgStore, PgSubscription, Progress, ProjectionHandler, testkit::TestDatabase};
use service_host::service::Service;
use sqlx::PgPool;
use usage::read_models::{file_links::FileLinks, runs::Runs, storage_changes::StorageChanges};
use uuid::Uuid;

pub(crate) struct ReadModels {
    pub(crate) pool: PgPool,
    database: TestDatabase,
    subscriptions: Vec<PgSubscription>,
    versions: BTreeMap<Uuid, u64>,
    pub(crate) organization: Uuid,
}

impl ReadModels {
    pub(crate) async fn new() -> Self {
        let database = TestDatabase::create().await;
        let pool = database.pool("billing", BillingService::migrations()).await;
        // The handlers append no events, so the appender need not run.
        let (store, _) = PgStore::new(pool.clone(), FastPath::new());
        let handlers: [Arc<dyn PgHandler>; 3] = [
            Arc::new(ProjectionHandler(StorageChanges)),
            Arc::new(ProjectionHandler(Runs)),
            Arc::new(ProjectionHandler(FileLinks)),
        ];
        let subscription = |handler| PgSubscription::new(handler, store.clone(), Progress::new(pool.clone()));
        let subscriptions = handlers.map(subscription).into_iter().collect();
        Self { pool, database, subscriptions, versions: BTreeMap::new(), organization: Uuid::now_v7() }
    }

    /// Builds the next event of an aggregate without delivering it.
    pub(crate) fn event<E: DomainEvent>(
        &mut self,
        aggregate: &'static str,
        id: Uuid,
        occurred_at: i64,
        recorded_at: i64,
        event: &E,
    ) -> Arc<Envelope> {
        let version = self.versions.entry(id).or_insert(0);
        *version += 1;
        let new = NewEvent::encode(event).unwrap();
        let context = CommandContext::new().for_tenant(self.organization);
        Arc::new(Envelope {
            event_id: Uuid::now_v7(),
            aggregate: aggregate.into(),
            aggregate_id: id,
            version: Version::new(*version),
            position: Position::new(*version),
            event_name: new.name.into(),
            schema: new.encoded.schema,
            payload: new.encoded.payload,
            occurred_at: Timestamp::from_millis(occurred_at),
            recorded_at: Timestamp::from_millis(recorded_at),
            metadata: (&context).into(),
        })
    }

    /// Delivers a batch to all subscriptions to its aggregates.
    pub(crate) async fn deliver(&self, events: &[Arc<Envelope>]) {
        for subscription in &self.subscriptions {
            let listens = |event: &&Arc<Envelope>| subscription.aggregates().contains(&&*event.aggregate);
            let events: Vec<_> = events.iter().filter(listens).cloned().collect();
            if !events.is_empty() {
                subscription.deliver(&events, DeliverySource::Bus).await.unwrap();
            }
        }
    }

    pub(crate) async fn close(self) {
        self.pool.close().await;
        self.database.drop().await;
    }
}
