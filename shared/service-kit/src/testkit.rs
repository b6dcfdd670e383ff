//! A service in a test: its own database, a bus in memory, requests straight into its router.
//!
//! The problem: services should be tried through their door, with their real tables, and without the other services. The
//! invariant: nothing of the service is replaced; other services' events come over the bus as they would, from a store of
//! their own that counts their versions.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode},
};
use clap::Parser;
use epoch::{
    CommandContext, DomainEvent, Envelope, Position, Timestamp, Version,
    bus::Bus,
    store::{Append, AppendOutcome, Appender, NewEvent, Streamer},
};
use epoch_postgres::testkit::TestDatabase;
use futures::TryStreamExt;
use http_body_util::BodyExt;
use serde_json::Value;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use uuid::Uuid;

use crate::{
    Caller, Secrets,
    cli::ProcessArgs,
    health::Health,
    server,
    service::{Roles, Running, Service, Shared, start},
    supervisor::Supervisor,
};

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    process: ProcessArgs,
}

/// The secret of all tests.
pub const SECRET: &str = "a secret of tests, not of anybody else";

/// How long [`TestService::close`] waits for connections in use.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// What a process needs, as a test has it: its database and a bus in memory.
///
/// # Panics
/// When the arguments can't be made.
#[must_use]
#[allow(clippy::expect_used, reason = "a test kit fails tests by panicking")]
pub fn shared(database_url: &str) -> Shared {
    shared_with(database_url, &[])
}

#[allow(clippy::expect_used, reason = "a test kit fails tests by panicking")]
fn shared_with(database_url: &str, more: &[&str]) -> Shared {
    let arguments = ["test", "--database-url", database_url, "--secret", SECRET, "--bus", "memory"];
    Arguments::try_parse_from(arguments.iter().chain(more)).expect("arguments of tests").process.shared()
}

/// A running service of a test.
pub struct TestService {
    /// Its database; dropped by [`TestService::close`].
    pub database: TestDatabase,
    /// What it shares with others.
    pub shared: Shared,
    /// The service's own tables.
    pub pool: PgPool,
    router: Router,
    running: Running,
    supervisor: Supervisor,
    others: epoch::memory::MemoryStore,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub bytes: bytes::Bytes,
}

impl Answer {
    /// The body as JSON; null when it isn't.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }

    /// A header's text; empty when it isn't there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The answer, if it has this status.
    ///
    /// # Panics
    /// When it hasn't.
    #[track_caller]
    #[must_use]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.bytes));
        self
    }

    /// Checks the status alone.
    ///
    /// # Panics
    /// When it is another one.
    #[track_caller]
    pub fn is(self, status: u16) {
        drop(self.expect(status));
    }

    /// A problem with this status.
    ///
    /// # Panics
    /// When it has another status or isn't a problem.
    #[track_caller]
    pub fn problem(self, status: u16) -> Value {
        let answer = self.expect(status);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        let problem = answer.json();
        assert_eq!(problem["status"], status);
        assert!(problem["type"].is_string() && problem["trace_id"].is_string(), "{problem}");
        problem
    }
}

/// A request that a test makes.
pub struct TestRequest<'a> {
    service: &'a TestService,
    method: Method,
    path: String,
    caller: Option<Caller>,
    headers: HeaderMap,
    body: Body,
}

#[allow(clippy::expect_used, reason = "a test kit fails tests by panicking")]
impl TestRequest<'_> {
    /// Asked by `caller`.
    #[must_use]
    pub fn by(mut self, caller: &Caller) -> Self {
        self.caller = Some(caller.clone());
        self
    }

    /// With a header more.
    ///
    /// # Panics
    /// When it isn't a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header"));
        self
    }

    /// With a JSON body.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        let mut request = self.header("content-type", "application/json");
        request.body = Body::from(body.to_string());
        request
    }

    /// With any body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// Makes the request and reads the answer. A POST without an `Idempotency-Key` gets a fresh one.
    ///
    /// # Panics
    /// When the answer can't be read.
    pub async fn send(mut self) -> Answer {
        if self.method == Method::POST && !self.headers.contains_key("idempotency-key") {
            self = self.header("idempotency-key", &Uuid::now_v7().to_string());
        }
        self.send_as_it_is().await
    }

    /// The same without adding an `Idempotency-Key`.
    ///
    /// # Panics
    /// When the answer can't be read.
    pub async fn send_as_it_is(self) -> Answer {
        let mut request = Request::builder().method(self.method).uri(&self.path).body(self.body).expect("a request");
        request.headers_mut().extend(self.headers);
        if let Some(caller) = &self.caller {
            caller.write_to(request.headers_mut(), &self.service.shared.secrets).expect("a caller");
        }
        let Ok(response) = self.service.router.clone().oneshot(request).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("the whole answer").to_bytes();
        Answer { status: parts.status, headers: parts.headers, bytes }
    }
}

#[allow(clippy::expect_used, clippy::panic, reason = "a test kit fails tests by panicking")]
impl TestService {
    /// Starts a service on a fresh database.
    ///
    /// # Panics
    /// When it can't start.
    pub async fn start<S: Service>() -> Self {
        Self::start_with::<S>(&[]).await
    }

    /// Starts a service on a fresh database, with more arguments, as in `--billing-url http://…`.
    ///
    /// # Panics
    /// When it can't start.
    pub async fn start_with<S: Service>(arguments: &[&str]) -> Self {
        let database = TestDatabase::create().await;
        let shared = shared_with(&database.url(), arguments);
        let mut supervisor = Supervisor::new(CancellationToken::new());
        let running = start::<S>(&shared, Roles::ALL, &mut supervisor, &Health::new()).await.expect("the service");
        let pool = shared.database.pool(S::NAME).expect("a pool");
        let router = server::finish(running.router.clone());
        Self { database, shared, pool, router, running, supervisor, others: epoch::memory::MemoryStore::new() }
    }

    /// From now on requests go into these routes of the service, as with a clock of the test's; all else goes on.
    pub fn answer_by(&mut self, router: Router) {
        self.router = server::finish(router);
    }

    /// A request of `path`.
    #[must_use]
    pub fn request(&self, method: Method, path: impl Into<String>) -> TestRequest<'_> {
        TestRequest {
            service: self,
            method,
            path: path.into(),
            caller: None,
            headers: HeaderMap::new(),
            body: Body::empty(),
        }
    }

    /// A GET.
    #[must_use]
    pub fn get(&self, path: impl Into<String>) -> TestRequest<'_> {
        self.request(Method::GET, path)
    }

    /// A POST.
    #[must_use]
    pub fn post(&self, path: impl Into<String>) -> TestRequest<'_> {
        self.request(Method::POST, path)
    }

    /// Events of another service, published on the bus.
    ///
    /// # Panics
    /// When they don't fit their schemas.
    pub async fn publish<E: DomainEvent>(
        &self,
        aggregate: &'static str,
        id: Uuid,
        tenant: Uuid,
        occurred_at: Timestamp,
        events: &[E],
    ) -> Vec<Arc<Envelope>> {
        let past: Vec<_> = self.others.stream(aggregate, id, Version::ZERO).try_collect().await.expect("the past");
        let append = Append {
            aggregate,
            aggregate_id: id,
            expected: Version::ZERO.after(past.len()),
            previous: None,
            events: events.iter().map(|event| NewEvent::encode(event).expect("an event")).collect(),
            context: CommandContext::at(occurred_at).for_tenant(tenant).by("service:test"),
        };
        let Ok(AppendOutcome::Committed { events, .. }) = self.others.append(append).await else {
            panic!("not appended")
        };
        self.shared.memory.publish(&events).await.expect("the bus");
        events
    }

    /// What other services have published in this test, once more: a bus delivers at least once.
    ///
    /// # Panics
    /// When the bus doesn't take it.
    pub async fn publish_again(&self) {
        let all = self.others.stream_all(&[], Position::START).map_ok(Arc::new).try_collect::<Vec<_>>().await;
        self.shared.memory.publish(&all.expect("the past")).await.expect("the bus");
    }

    /// The secrets of this test.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.shared.secrets
    }

    /// Asks until `found` says that what is read is right.
    ///
    /// # Panics
    /// When it isn't within 20 seconds.
    pub async fn eventually<T, F: Future<Output = Option<T>>>(&self, mut found: impl FnMut() -> F) -> T {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(value) = found().await {
                return value;
            }
            assert!(tokio::time::Instant::now() < deadline, "it didn't become true");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Stops the service and drops its database, even when a test still holds connections to it.
    pub async fn close(self) {
        self.supervisor.shutdown(Duration::from_secs(10)).await;
        drop(self.running);
        // Waits for connections that are in use; dropping the database ends those of them that stay.
        let _ = tokio::time::timeout(CLOSE_LIMIT, self.pool.close()).await;
        self.database.drop().await;
    }
}
