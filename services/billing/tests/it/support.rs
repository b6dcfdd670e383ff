//! A billing service, and files and jobs that tell it what they do.

use std::sync::Arc;

use billing::{BillingService, http, invoicing::ledger::Ledger, settings};
use contracts::{
    file::{self, FileDeleted, FileEvent, FilePartUploaded, FileUploadAborted, FileUploadCompleted, FileUploadStarted},
    job::{self, JobCreated, JobEvent, JobQueued, JobStarted, JobSucceeded},
    organization::{OrganizationCreated, OrganizationEvent},
};
use epoch::{FastPath, Timestamp};
use epoch_postgres::PgStore;
use http_kit::{Caller, Role};
use serde_json::{Value, json};
use service_host::testkit::{TestResponse, TestService};
use sqlx::PgPool;
use uuid::Uuid;

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A file of more changes has sums of its own from now on; elsewhere 32 are few.
pub(crate) async fn few_changes_are(pool: &PgPool, few: usize) {
    let few =
        format!("create or replace function metering_few_changes() returns bigint language sql immutable return {few}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(few)).execute(pool).await.unwrap();
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

    /// The same with more arguments.
    pub(crate) async fn start_with(arguments: &[&str]) -> Self {
        let service = TestService::start_with::<BillingService>(arguments).await;
        let organization = Uuid::now_v7();
        let viewer = Caller::key(Uuid::now_v7(), organization, Role::Viewer);
        Self { service, organization, viewer }
    }

    /// From now on it is this instant for all answers.
    pub(crate) fn it_is(&mut self, when: &str) {
        let now = at(when);
        let (store, _) = PgStore::new(self.service.pool.clone(), FastPath::new());
        let ledger = Ledger::new(store, settings::prices(|_| None).unwrap().plan(), Arc::new(move || now));
        let (pool, secrets) = (self.service.pool.clone(), self.service.secrets().clone());
        self.service.replace_router(http::router(http::state::Api { pool, secrets, ledger }).0);
    }

    pub(crate) fn path(&self, what: &str, query: &str) -> String {
        format!("/api/v1/organizations/{}/{what}?{query}", self.organization)
    }

    pub(crate) async fn ask(&self, what: &str, query: &str) -> Value {
        self.service.get(self.path(what, query)).by(&self.viewer).send().await.expect(200).json()
    }

    /// Asks until the answer has this at `pointer`.
    pub(crate) async fn ask_until(&self, what: &str, query: &str, pointer: &str, expected: &str) -> Value {
        let found = async || {
            let answer = self.ask(what, query).await;
            (answer.pointer(pointer).and_then(Value::as_str) == Some(expected)).then_some(answer)
        };
        self.service.eventually(found).await
    }

    /// Something happens to a file; says by which event.
    pub(crate) async fn file(&self, file: Uuid, when: &str, event: impl Into<FileEvent>) -> Uuid {
        let events = self.service.publish(file::AGGREGATE, file, self.organization, at(when), &[event.into()]).await;
        events[0].event_id
    }

    /// Something happens to a job; says by which event.
    pub(crate) async fn job(&self, job: Uuid, when: &str, event: impl Into<JobEvent>) -> Uuid {
        let events = self.service.publish(job::AGGREGATE, job, self.organization, at(when), &[event.into()]).await;
        events[0].event_id
    }

    /// The organization is created, and gets its account by itself.
    pub(crate) async fn account_opens(&self) {
        let created: OrganizationEvent = OrganizationCreated { name: "Acme".into() }.into();
        let organization = self.organization;
        let when = at("2025-10-01T00:00:00Z");
        self.service.publish("organization", organization, organization, when, &[created]).await;
        let opened = async || {
            let answer = self.service.get(self.path("account", "")).by(&self.viewer).send().await;
            (answer.status == 200).then_some(())
        };
        self.service.eventually(opened).await;
    }

    /// An operator asks for something to be done.
    pub(crate) async fn admin(&self, path: &str, body: &Value) -> TestResponse {
        self.service.post(format!("/api/v1/admin/{path}")).by(&Caller::operator()).json(body).send().await
    }

    /// An operator asks for something to be done about the account.
    pub(crate) async fn account(&self, path: &str, body: &Value) -> TestResponse {
        self.admin(&format!("organizations/{}/account/{path}", self.organization), body).await
    }

    /// Publishes a plan and charges the account by it since October 2025; gives the plan's id.
    pub(crate) async fn assigned(&self, plan: &Value) -> String {
        self.assigned_from("2025-10-01T00:00:00Z", plan).await
    }

    /// The same since an instant.
    pub(crate) async fn assigned_from(&self, from: &str, plan: &Value) -> String {
        let plan = self.admin("plans", plan).await.expect(201).json()["id"].as_str().unwrap().to_owned();
        let assign = json!({ "plan": plan, "plan_version": 1, "from": from });
        self.account("plan", &assign).await.is(200);
        plan
    }

    /// Events that billing has applied, by subscription: the sum of all versions it is at.
    pub(crate) async fn applied(&self, subscription: &str) -> i64 {
        sqlx::query_scalar("select coalesce(sum(version), 0)::bigint from cursors where subscription = $1")
            .bind(subscription)
            .fetch_one(&self.service.pool)
            .await
            .unwrap()
    }

    /// Waits until billing has applied as many events of files and jobs as there are.
    pub(crate) async fn caught_up(&self, files: i64, jobs: i64) {
        let reached = async || {
            let applied = (self.applied("storage-changes").await, self.applied("runs").await);
            (applied == (files, jobs)).then_some(())
        };
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
        let part_id = Uuid::now_v7();
        FilePartUploaded { organization_id: self.organization, part_id, offset, bytes, sha256: "0".repeat(64) }
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
        JobStarted {
            organization_id: self.organization,
            machine_id: Uuid::now_v7(),
            user_id,
            machine_type: "default".into(),
        }
    }

    pub(crate) fn job_succeeded(&self) -> JobSucceeded {
        JobSucceeded { organization_id: self.organization, exit_code: 0 }
    }
}

/// An id whose place among others is known.
pub(crate) fn id(number: u128) -> Uuid {
    Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0000 + number)
}

/// The day in Madrid that has 25 hours, and half an hour of the day after.
pub(crate) const AUTUMN: &str =
    "from=2025-10-25T22:00:00Z&to=2025-10-26T23:30:00Z&time_zone=Europe/Madrid&as_of=2025-10-26T23:15:00Z";
