//! An organization under test, and a second process on the same tables.

use std::sync::Arc;

use axum::http::Method;
use epoch::{CommandContext, Envelope, FastPath, Repository};
use epoch_postgres::{PgHandler, PgStore, PgSubscription, Progress, testkit::TestDatabase};
use http_kit::{Caller, Role};
use organization::{
    OrganizationService,
    domain::{Name, Organization, OrganizationCommand},
};
use serde_json::{Value, json};
use service_host::{
    service::Service,
    testkit::{TestResponse, TestService},
};
use sqlx::PgPool;
use uuid::Uuid;

pub(crate) const ORGANIZATIONS: &str = "/api/v1/organizations";

pub(crate) fn path(organization: Uuid, rest: &str) -> String {
    format!("{ORGANIZATIONS}/{organization}{rest}")
}

/// Returns an API key caller of `organization` with `role`.
pub(crate) fn key(organization: Uuid, role: Role) -> Caller {
    Caller::key(Uuid::now_v7(), organization, role)
}

pub(crate) fn uuid(value: &Value) -> Uuid {
    value.as_str().unwrap().parse().unwrap()
}

/// A service with an organization `Acme`, owned by Ada.
pub(crate) struct Acme {
    pub(crate) service: TestService,
    pub(crate) id: Uuid,
    pub(crate) owner: Uuid,
}

impl Acme {
    pub(crate) async fn start() -> Self {
        let service = TestService::start::<OrganizationService>().await;
        let id = create(&service, "Acme", "ada@example.org").await;
        let view = read(&service, id, 2).await;
        let owner = uuid(&view["members"][0]["user_id"]);
        Self { service, id, owner }
    }

    pub(crate) fn path(&self, rest: &str) -> String {
        path(self.id, rest)
    }

    pub(crate) fn caller(&self, role: Role) -> Caller {
        key(self.id, role)
    }

    pub(crate) async fn read(&self, min_version: u64) -> Value {
        read(&self.service, self.id, min_version).await
    }

    pub(crate) async fn post(&self, rest: &str, caller: &Caller, body: &Value) -> TestResponse {
        self.service.post(self.path(rest)).by(caller).json(body).send().await
    }

    pub(crate) async fn send(&self, method: Method, rest: &str, caller: &Caller, body: &Value) -> TestResponse {
        let request = self.service.request(method, self.path(rest)).by(caller);
        let request = if body.is_null() { request } else { request.json(body) };
        request.send().await
    }

    /// Adds a member. Returns the user id and the version of the organization.
    pub(crate) async fn add(&self, email: &str, role: &str) -> (Uuid, u64) {
        let body = json!({ "email": email, "name": "Member", "role": role });
        let added = self.post("/members", &Caller::operator(), &body).await.expect(201).json();
        (uuid(&added["user_id"]), added["version"].as_u64().unwrap())
    }

    /// Returns a second process on the same database, with its own connections.
    pub(crate) async fn process(&self) -> Process {
        Process::on(&pool(&self.service.database).await)
    }

    /// Returns the number of rows of `table`.
    pub(crate) async fn count(&self, table: &'static str) -> i64 {
        let query = sqlx::AssertSqlSafe(format!("select count(*) from {table}"));
        sqlx::query_scalar(query).fetch_one(&self.service.pool).await.unwrap()
    }
}

pub(crate) async fn create(service: &TestService, name: &str, owner: &str) -> Uuid {
    let body = json!({ "name": name, "owner": { "email": owner, "name": "Ada Lovelace" } });
    let created = service.post(ORGANIZATIONS).by(&Caller::operator()).json(&body).send().await.expect(201);
    uuid(&created.json()["id"])
}

pub(crate) async fn read(service: &TestService, organization: Uuid, min_version: u64) -> Value {
    let path = format!("{}?min_version={min_version}", path(organization, ""));
    service.get(path).by(&Caller::operator()).send().await.expect(200).json()
}

/// Stands for another process of the service on the same tables.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) store: PgStore,
    pub(crate) organizations: Repository<Organization, PgStore>,
    progress: Progress,
}

impl Process {
    pub(crate) fn on(pool: &PgPool) -> Self {
        let (store, appender) = PgStore::new(pool.clone(), FastPath::new());
        tokio::spawn(appender.run());
        let organizations = Repository::new(store.clone());
        Self { store, organizations, progress: Progress::new(pool.clone()) }
    }

    pub(crate) fn subscription(&self, handler: impl PgHandler) -> PgSubscription {
        PgSubscription::new(Arc::new(handler), self.store.clone(), self.progress.clone())
    }

    pub(crate) async fn create(&self, id: Uuid) {
        let command = OrganizationCommand::Create { name: Name::parse("Acme").unwrap(), owner: Uuid::now_v7() };
        self.organizations.create(id, &command, &CommandContext::new()).await.unwrap();
    }

    /// Returns the storage total of an organization, folded from its stream.
    pub(crate) async fn total(&self, id: Uuid) -> i64 {
        let fresh = Repository::<Organization, _>::new(self.store.clone()).with_cache(0);
        fresh.load(id).await.unwrap().state.storage_bytes()
    }
}

/// Creates a database with the service's tables, without a running service.
pub(crate) async fn tables() -> (TestDatabase, PgPool) {
    let database = TestDatabase::create().await;
    let pool = pool(&database).await;
    (database, pool)
}

/// Connects to the service's tables.
pub(crate) async fn pool(database: &TestDatabase) -> PgPool {
    database.pool(OrganizationService::NAME, OrganizationService::migrations()).await
}

pub(crate) type Events = Vec<Arc<Envelope>>;
