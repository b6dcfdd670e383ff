//! A service under test: its own database, a bus in memory, and requests straight into its router.
//!
//! Tests run the real service against its real tables. Events of other services are published on the bus as in production, by
//! a memory store that counts their versions.

mod http;

use std::{sync::Arc, time::Duration};

use axum::{Router, http::Method};
use clap::Parser;
use epoch::{
    CommandContext, DomainEvent, Envelope, Position, Timestamp, Version,
    bus::Bus,
    store::{Append, AppendOutcome, Appender, NewEvent, Streamer},
};
use epoch_postgres::testkit::TestDatabase;
use futures::TryStreamExt;
use http_kit::{Secrets, server};
use sqlx::PgPool;
use uuid::Uuid;

pub use self::http::{TestRequest, TestResponse};
use crate::{
    config::ProcessArgs,
    process::{Process, ProcessContext, Roles, RunningService},
    service::Service,
};

#[derive(Parser)]
struct TestArgs {
    #[command(flatten)]
    process: ProcessArgs,
}

/// The installation secret of all tests.
pub const SECRET: &str = "a secret of tests, not of anybody else";

/// How long [`eventually`] polls.
const EVENTUALLY_LIMIT: Duration = Duration::from_secs(20);

/// How long [`TestService::close`] waits for connections in use.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Returns the context of a process under test, with a bus in memory.
#[must_use]
#[allow(clippy::expect_used, reason = "a test kit fails tests by panicking")]
pub fn process_context(database_url: &str) -> ProcessContext {
    process_context_with(database_url, &[])
}

#[allow(clippy::expect_used, reason = "a test kit fails tests by panicking")]
fn process_context_with(database_url: &str, more: &[&str]) -> ProcessContext {
    let arguments = ["test", "--database-url", database_url, "--secret", SECRET, "--bus", "memory"];
    let args = TestArgs::try_parse_from(arguments.iter().chain(more)).expect("valid arguments");
    ProcessContext::new(&args.process)
}

/// Polls `condition` until it returns a value. `name` describes it in the panic message.
///
/// # Panics
/// After 20 seconds.
pub async fn eventually<T, F: Future<Output = Option<T>>>(name: &str, mut condition: impl FnMut() -> F) -> T {
    let deadline = tokio::time::Instant::now() + EVENTUALLY_LIMIT;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "timed out: {name}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A running service under test.
pub struct TestService {
    /// Dropped by [`TestService::close`].
    pub database: TestDatabase,
    pub shared: ProcessContext,
    /// Connections to the service's tables.
    pub pool: PgPool,
    router: Router,
    service: RunningService,
    process: Process,
    /// The events of other services.
    others: epoch::memory::MemoryStore,
}

#[allow(clippy::expect_used, clippy::panic, reason = "a test kit fails tests by panicking")]
impl TestService {
    /// Starts a service on a new database.
    ///
    /// # Panics
    /// When the service fails to start.
    pub async fn start<S: Service>() -> Self {
        Self::start_with::<S>(&[]).await
    }

    /// Starts a service on a new database with additional arguments, e.g. `--billing-url http://…`.
    ///
    /// # Panics
    /// When the service fails to start.
    pub async fn start_with<S: Service>(arguments: &[&str]) -> Self {
        let database = TestDatabase::create().await;
        let shared = process_context_with(&database.url(), arguments);
        let mut process = Process::new();
        let service = process.start::<S>(&shared, Roles::ALL).await.expect("running service");
        let pool = shared.database.pool(S::NAME).expect("valid database URL");
        let router = server::finish(service.router.clone());
        Self { database, shared, pool, router, service, process, others: epoch::memory::MemoryStore::new() }
    }

    /// Sends later requests to these routes of the service, e.g. routes with a manual clock. Its tasks keep running.
    pub fn replace_router(&mut self, router: Router) {
        self.router = server::finish(router);
    }

    #[must_use]
    pub fn request(&self, method: Method, path: impl Into<String>) -> TestRequest<'_> {
        TestRequest::new(&self.router, &self.shared.secrets, method, path.into())
    }

    #[must_use]
    pub fn get(&self, path: impl Into<String>) -> TestRequest<'_> {
        self.request(Method::GET, path)
    }

    #[must_use]
    pub fn post(&self, path: impl Into<String>) -> TestRequest<'_> {
        self.request(Method::POST, path)
    }

    /// Publishes events of another service on the bus.
    ///
    /// # Panics
    /// When an event does not match its schema.
    pub async fn publish<E: DomainEvent>(
        &self,
        aggregate: &'static str,
        id: Uuid,
        tenant: Uuid,
        occurred_at: Timestamp,
        events: &[E],
    ) -> Vec<Arc<Envelope>> {
        let stored: Vec<_> =
            self.others.stream(aggregate, id, Version::ZERO).try_collect().await.expect("readable store");
        let append = Append {
            aggregate,
            aggregate_id: id,
            expected: Version::ZERO.after(stored.len()),
            previous: None,
            events: events.iter().map(|event| NewEvent::encode(event).expect("valid event")).collect(),
            context: CommandContext::at(occurred_at).for_tenant(tenant).by("service:test"),
        };
        let Ok(AppendOutcome::Committed { events, .. }) = self.others.append(append).await else { panic!("conflict") };
        self.shared.memory.publish(&events).await.expect("open bus");
        events
    }

    /// Publishes all events of other services again. A bus delivers at least once.
    ///
    /// # Panics
    /// When the bus refuses the events.
    pub async fn republish(&self) {
        let all = self.others.stream_all(&[], Position::START).map_ok(Arc::new).try_collect::<Vec<_>>().await;
        self.shared.memory.publish(&all.expect("readable store")).await.expect("open bus");
    }

    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.shared.secrets
    }

    /// Polls `condition` until it returns a value.
    ///
    /// # Panics
    /// After 20 seconds.
    pub async fn eventually<T, F: Future<Output = Option<T>>>(&self, condition: impl FnMut() -> F) -> T {
        eventually("condition", condition).await
    }

    /// Stops the service and drops its database, even if the test still holds connections to it.
    pub async fn close(self) {
        self.process.supervisor.shutdown(Duration::from_secs(10)).await;
        drop(self.service);
        // Wait for connections in use. Dropping the database closes the remaining ones.
        let _ = tokio::time::timeout(CLOSE_LIMIT, self.pool.close()).await;
        self.database.drop().await;
    }
}
