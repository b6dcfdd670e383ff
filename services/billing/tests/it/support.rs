//! A billing service under test, with the file and job events that it consumes.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use billing::{BillingService, http, invoicing::ledger::Ledger, settings};
use contracts::{
    file::{self, FileDeleted, FileEvent, FilePartUploaded, FileUploadAborted, FileUploadCompleted, FileUploadStarted},
    job::{self, JobCreated, JobEvent, JobQueued, JobStarted, JobSucceeded},
    organization::{OrganizationCreated, OrganizationEvent},
};
use epoch::{FastPath, Timestamp};
use epoch_postgres::PgStore;
use http_kit::{Caller, Role};
use rating::pricing::standard_plan::StandardPlan;
use serde_json::{Value, json};
use service_host::testkit::{TestResponse, TestService};
use sqlx::PgPool;
use uuid::Uuid;

pub(crate) const HOUR: i64 = 3_600_000;
pub(crate) const DAY: i64 = 24 * HOUR;

/// The local day in Madrid that has 25 hours, plus half an hour of the next day.
pub(crate) const AUTUMN_QUERY: &str =
    "from=2025-10-25T22:00:00Z&to=2025-10-26T23:30:00Z&time_zone=Europe/Madrid&as_of=2025-10-26T23:15:00Z";

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Returns a test id. Ids are ordered as their numbers are.
pub(crate) fn id(number: u128) -> Uuid {
    Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0000 + number)
}

/// Parses an integer that the API writes as a string.
pub(crate) fn number(value: &Value) -> i128 {
    value.as_str().unwrap().parse().unwrap()
}

/// Sets the number of changes above which a file gets rollups of its own. The default is 32.
pub(crate) async fn set_rollup_threshold(pool: &PgPool, changes: usize) {
    let function = format!(
        "create or replace function metering_few_changes() returns bigint language sql immutable return {changes}"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(function)).execute(pool).await.unwrap();
}

pub(crate) fn part_uploaded(organization_id: Uuid, offset: i64, bytes: i64) -> FilePartUploaded {
    FilePartUploaded { organization_id, part_id: Uuid::now_v7(), offset, bytes, sha256: "0".repeat(64) }
}

pub(crate) fn job_started(organization_id: Uuid, user_id: Option<Uuid>) -> JobStarted {
    JobStarted { organization_id, machine_id: Uuid::now_v7(), user_id, machine_type: "default".into() }
}

/// The plan of an installation that sets no prices.
pub(crate) fn default_prices() -> StandardPlan {
    settings::prices(|_| None).unwrap().plan()
}

/// Opens an invoice ledger as a process of the service has it, with these standard prices and a clock of the test.
pub(crate) fn invoice_ledger(
    pool: &PgPool,
    prices: StandardPlan,
    clock: impl Fn() -> Timestamp + Send + Sync + 'static,
) -> Ledger {
    let (store, appender) = PgStore::new(pool.clone(), FastPath::new());
    tokio::spawn(appender.run());
    Ledger::new(store, prices, Arc::new(clock))
}

/// A clock that stands still until the test moves it.
#[derive(Clone)]
pub(crate) struct TestClock(Arc<AtomicI64>);

impl TestClock {
    pub(crate) fn starting_at(millis: i64) -> Self {
        Self(Arc::new(AtomicI64::new(millis)))
    }

    pub(crate) fn set(&self, millis: i64) {
        self.0.store(millis, Ordering::SeqCst);
    }

    pub(crate) fn reader(&self) -> impl Fn() -> Timestamp + Send + Sync + 'static {
        let millis = Arc::clone(&self.0);
        move || Timestamp::from_millis(millis.load(Ordering::SeqCst))
    }
}

/// A plan in EUR at this price of a second, with 1.01 cents per GB-hour and 10 % tax.
pub(crate) fn team_plan(price: &str) -> Value {
    json!({
        "name": "Team <b>",
        "currency": "EUR",
        "charges": [
            { "meter": "compute", "unit": "s", "model": "flat", "unit_price": price },
            { "meter": "storage", "unit": "GB.h", "model": "flat", "unit_price": "0.0101" },
        ],
        "tax_percent": "10",
    })
}

/// Starts billing for a customer with an account, a one-hour job and a file of 1 GB for one day, both in October 2025.
pub(crate) async fn october_customer() -> Billing {
    let billing = Billing::start().await;
    billing.job(id(11), "2025-10-02T08:00:00Z", billing.job_started(None)).await;
    billing.job(id(11), "2025-10-02T09:00:00Z", billing.job_succeeded()).await;
    billing.file(id(1), "2025-10-02T00:00:00Z", billing.part(0, 1_000_000_000)).await;
    billing.file(id(1), "2025-10-03T00:00:00Z", billing.deleted(1_000_000_000)).await;
    billing.wait_until_applied(2, 2).await;
    billing.open_account().await;
    billing
}

pub(crate) struct Billing {
    pub(crate) service: TestService,
    pub(crate) organization: Uuid,
    pub(crate) viewer: Caller,
}

impl Billing {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts the service with additional command-line arguments.
    pub(crate) async fn start_with(arguments: &[&str]) -> Self {
        let service = TestService::start_with::<BillingService>(arguments).await;
        let organization = Uuid::now_v7();
        let viewer = Caller::key(Uuid::now_v7(), organization, Role::Viewer);
        Self { service, organization, viewer }
    }

    /// Sets the clock of all responses to this instant.
    pub(crate) fn set_clock(&mut self, when: &str) {
        let now = at(when);
        let ledger = invoice_ledger(&self.service.pool, default_prices(), move || now);
        let (pool, secrets) = (self.service.pool.clone(), self.service.secrets().clone());
        self.service.replace_router(http::router(http::state::Api { pool, secrets, ledger }).0);
    }

    pub(crate) fn path(&self, resource: &str, query: &str) -> String {
        format!("/api/v1/organizations/{}/{resource}?{query}", self.organization)
    }

    pub(crate) async fn get_json(&self, resource: &str, query: &str) -> Value {
        self.service.get(self.path(resource, query)).by(&self.viewer).send().await.expect(200).json()
    }

    /// Repeats the request until the response has the expected text at `pointer`.
    pub(crate) async fn get_until(&self, resource: &str, query: &str, pointer: &str, expected: &str) -> Value {
        let matching = async || {
            let response = self.get_json(resource, query).await;
            (response.pointer(pointer).and_then(Value::as_str) == Some(expected)).then_some(response)
        };
        self.service.eventually(matching).await
    }

    /// Publishes an event of a file and returns the event id.
    pub(crate) async fn file(&self, file: Uuid, when: &str, event: impl Into<FileEvent>) -> Uuid {
        let events = self.service.publish(file::AGGREGATE, file, self.organization, at(when), &[event.into()]).await;
        events[0].event_id
    }

    /// Publishes an event of a job and returns the event id.
    pub(crate) async fn job(&self, job: Uuid, when: &str, event: impl Into<JobEvent>) -> Uuid {
        let events = self.service.publish(job::AGGREGATE, job, self.organization, at(when), &[event.into()]).await;
        events[0].event_id
    }

    /// Creates the organization, which makes billing open its account, and waits for the account.
    pub(crate) async fn open_account(&self) {
        let created: OrganizationEvent = OrganizationCreated { name: "Acme".into() }.into();
        let organization = self.organization;
        let when = at("2025-10-01T00:00:00Z");
        self.service.publish("organization", organization, organization, when, &[created]).await;
        let opened = async || {
            let response = self.service.get(self.path("account", "")).by(&self.viewer).send().await;
            (response.status == 200).then_some(())
        };
        self.service.eventually(opened).await;
    }

    /// Waits until the `billing_accounts` table lists this many accounts.
    pub(crate) async fn wait_for_listed_accounts(&self, accounts: i64) {
        let listed = async || {
            let count = sqlx::query_scalar::<_, i64>("select count(*) from billing_accounts");
            (count.fetch_one(&self.service.pool).await.unwrap() == accounts).then_some(())
        };
        self.service.eventually(listed).await;
    }

    /// Posts to the admin API as an operator.
    pub(crate) async fn post_admin(&self, path: &str, body: &Value) -> TestResponse {
        self.service.post(format!("/api/v1/admin/{path}")).by(&Caller::operator()).json(body).send().await
    }

    /// Posts to the account's part of the admin API as an operator.
    pub(crate) async fn post_account(&self, path: &str, body: &Value) -> TestResponse {
        self.post_admin(&format!("organizations/{}/account/{path}", self.organization), body).await
    }

    /// Posts an action (`finalize`, `void`) on the month's invoice as an operator.
    pub(crate) async fn post_invoice(&self, month: &str, action: &str, body: &Value) -> TestResponse {
        self.post_admin(&format!("organizations/{}/invoices/{month}/{action}", self.organization), body).await
    }

    pub(crate) async fn finalize_invoice(&self, month: &str) {
        self.post_invoice(month, "finalize", &Value::Null).await.is(200);
    }

    pub(crate) async fn void_invoice(&self, month: &str, reason: &str) {
        self.post_invoice(month, "void", &json!({ "reason": reason })).await.is(200);
    }

    /// Publishes a plan and returns its id.
    pub(crate) async fn publish_plan(&self, plan: &Value) -> String {
        self.post_admin("plans", plan).await.expect(201).json()["id"].as_str().unwrap().to_owned()
    }

    /// Publishes a plan, assigns it to the account from October 2025 on and returns its id.
    pub(crate) async fn assign_plan(&self, plan: &Value) -> String {
        self.assign_plan_from("2025-10-01T00:00:00Z", plan).await
    }

    pub(crate) async fn assign_plan_from(&self, from: &str, plan: &Value) -> String {
        let plan = self.publish_plan(plan).await;
        let assign = json!({ "plan": plan, "plan_version": 1, "from": from });
        self.post_account("plan", &assign).await.is(200);
        plan
    }

    /// Returns the number of events that the subscription has applied: the sum of the versions in its cursors.
    pub(crate) async fn applied_events(&self, subscription: &str) -> i64 {
        sqlx::query_scalar("select coalesce(sum(version), 0)::bigint from cursors where subscription = $1")
            .bind(subscription)
            .fetch_one(&self.service.pool)
            .await
            .unwrap()
    }

    /// Waits until billing has applied exactly this many events of files and of jobs.
    pub(crate) async fn wait_until_applied(&self, files: i64, jobs: i64) {
        let reached = async || {
            let applied = (self.applied_events("storage-changes").await, self.applied_events("runs").await);
            (applied == (files, jobs)).then_some(())
        };
        self.service.eventually(reached).await;
    }

    /// Waits until the read model of file links has applied exactly this many events of jobs.
    pub(crate) async fn wait_until_linked(&self, jobs: i64) {
        let reached = async || (self.applied_events("file-links").await == jobs).then_some(());
        self.service.eventually(reached).await;
    }

    pub(crate) fn started(&self) -> FileUploadStarted {
        FileUploadStarted {
            organization_id: self.organization,
            name: "a".into(),
            content_type: "text/plain".into(),
            declared_bytes: 100,
            produced_by_job: None,
        }
    }

    pub(crate) fn part(&self, offset: i64, bytes: i64) -> FilePartUploaded {
        part_uploaded(self.organization, offset, bytes)
    }

    pub(crate) fn completed(&self, bytes: i64) -> FileUploadCompleted {
        FileUploadCompleted { organization_id: self.organization, bytes }
    }

    pub(crate) fn aborted(&self, bytes: i64) -> FileUploadAborted {
        FileUploadAborted { organization_id: self.organization, bytes }
    }

    pub(crate) fn deleted(&self, bytes: i64) -> FileDeleted {
        FileDeleted { organization_id: self.organization, bytes }
    }

    pub(crate) fn job_created(&self) -> JobCreated {
        JobCreated {
            organization_id: self.organization,
            job_configuration_id: Uuid::now_v7(),
            name: "j".into(),
            command: vec!["true".into()],
            timeout_ms: 1_000,
            user_id: None,
        }
    }

    pub(crate) fn job_queued(&self) -> JobQueued {
        JobQueued { organization_id: self.organization }
    }

    pub(crate) fn job_started(&self, user_id: Option<Uuid>) -> JobStarted {
        job_started(self.organization, user_id)
    }

    pub(crate) fn job_succeeded(&self) -> JobSucceeded {
        JobSucceeded { organization_id: self.organization, exit_code: 0 }
    }
}
