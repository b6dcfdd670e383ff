//! A running job service and helpers for tests.

use axum::http::Method;
use contracts::file::{FileEvent, FileUploadCompleted, FileUploadStarted};
use epoch::{FastPath, Timestamp};
use epoch_postgres::PgStore;
use http_kit::{Caller, Role};
use job::JobService;
use serde_json::{Value, json};
use service_host::{
    service::Service,
    testkit::{TestRequest, TestResponse, TestService},
};
use uuid::Uuid;

pub(crate) struct Platform {
    pub(crate) service: TestService,
    pub(crate) organization: Uuid,
    pub(crate) user: Uuid,
    pub(crate) member: Caller,
    pub(crate) admin: Caller,
    /// Owner of another organization.
    pub(crate) stranger: Caller,
    pub(crate) runner: Caller,
}

impl Platform {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(arguments: &[&str]) -> Self {
        let (organization, user) = (Uuid::now_v7(), Uuid::now_v7());
        Self {
            service: TestService::start_with::<JobService>(arguments).await,
            organization,
            user,
            member: Caller::user(user, Some(organization), Role::Member),
            admin: Caller::key(Uuid::now_v7(), organization, Role::Admin),
            stranger: Caller::key(Uuid::now_v7(), Uuid::now_v7(), Role::Owner),
            runner: Caller::service("runner"),
        }
    }

    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/api/v1/organizations/{}/{rest}", self.organization)
    }

    pub(crate) fn get(&self, rest: &str) -> TestRequest<'_> {
        self.service.get(self.path(rest)).by(&self.member)
    }

    pub(crate) fn post(&self, rest: &str) -> TestRequest<'_> {
        self.service.post(self.path(rest)).by(&self.member)
    }

    pub(crate) fn put(&self, rest: &str) -> TestRequest<'_> {
        self.service.request(Method::PUT, self.path(rest)).by(&self.member)
    }

    pub(crate) fn internal(&self, rest: &str) -> TestRequest<'_> {
        self.service.post(format!("/internal/v1/job/{rest}")).by(&self.runner)
    }

    pub(crate) async fn define(&self, name: &str) -> Uuid {
        let body = json!({ "name": name, "command": ["sha256sum", "-b"], "timeout_ms": 60_000 });
        let answer = self.post("job-configurations").by(&self.admin).json(&body).send().await.expect(201);
        id_of(&answer)
    }

    /// Creates a job with input files.
    pub(crate) async fn create(&self, configuration: Uuid, file_ids: &[Uuid]) -> Uuid {
        let body = json!({ "job_configuration_id": configuration, "file_ids": file_ids });
        id_of(&self.post("jobs").json(&body).send().await.expect(201))
    }

    /// Creates and queues a job.
    pub(crate) async fn queued_job(&self) -> Uuid {
        let configuration = self.define("Checksum").await;
        let job = self.create(configuration, &[]).await;
        self.queue(job).await;
        job
    }

    pub(crate) async fn queue(&self, job: Uuid) {
        self.post(&format!("jobs/{job}/queue")).send().await.is(200);
    }

    pub(crate) async fn claim(&self, machine: Uuid, wait_ms: u64) -> TestResponse {
        self.internal("claims").json(&json!({ "machine_id": machine, "wait_ms": wait_ms })).send().await
    }

    pub(crate) async fn start_job(&self, job: Uuid, machine: Uuid, at: Timestamp) -> TestResponse {
        let body = json!({ "machine_id": machine, "at": at.to_string() });
        self.internal(&format!("jobs/{job}/started")).json(&body).send().await
    }

    /// Sends a heartbeat, and returns whether the machine should continue.
    pub(crate) async fn heartbeat(&self, job: Uuid, machine: Uuid) -> bool {
        let heartbeat = self.internal(&format!("jobs/{job}/heartbeat")).json(&json!({ "machine_id": machine }));
        heartbeat.send().await.expect(200).json()["continue"].as_bool().unwrap()
    }

    pub(crate) async fn finish_job(&self, job: Uuid, machine: Uuid, at: Timestamp, outcome: &Value) -> TestResponse {
        let mut body = json!({ "machine_id": machine, "at": at.to_string() });
        body.as_object_mut().unwrap().extend(outcome.as_object().unwrap().clone());
        self.internal(&format!("jobs/{job}/finished")).json(&body).send().await
    }

    /// Creates and queues a job, and assigns it to `machine`.
    pub(crate) async fn assigned_job(&self, machine: Uuid) -> Uuid {
        let job = self.queued_job().await;
        let claimed = self.claim(machine, 5_000).await.expect(200).json();
        assert_eq!(claimed["job_id"], job.to_string());
        job
    }

    /// Creates a job and starts it on `machine`.
    pub(crate) async fn running_job(&self, machine: Uuid) -> Uuid {
        let job = self.assigned_job(machine).await;
        self.start_job(job, machine, Timestamp::now()).await.is(200);
        job
    }

    /// Returns the job from the read model at its newest version.
    pub(crate) async fn get_job(&self, job: Uuid) -> Value {
        let version = self.version(job).await;
        self.get(&format!("jobs/{job}?min_version={version}")).send().await.expect(200).json()
    }

    pub(crate) async fn version(&self, id: Uuid) -> i64 {
        let query = sqlx::query_scalar("select coalesce(max(version), 0) from events where aggregate_id = $1");
        query.bind(id).fetch_one(&self.service.pool).await.unwrap()
    }

    /// Returns the names of an aggregate's events, in order.
    pub(crate) async fn event_names(&self, id: Uuid) -> Vec<String> {
        let query = sqlx::query_scalar("select event_name from events where aggregate_id = $1 order by version");
        query.bind(id).fetch_all(&self.service.pool).await.unwrap()
    }

    /// Returns the number of events in the store.
    pub(crate) async fn event_count(&self) -> i64 {
        sqlx::query_scalar("select count(*) from events").fetch_one(&self.service.pool).await.unwrap()
    }

    pub(crate) async fn lease_count(&self) -> i64 {
        sqlx::query_scalar("select count(*) from leases").fetch_one(&self.service.pool).await.unwrap()
    }

    /// Returns a store like that of another process: its events reach the handlers over the bus, not by the fast path.
    pub(crate) fn store_of_other_process(&self) -> PgStore {
        let pool = self.service.shared.database.pool(JobService::NAME).unwrap();
        let (store, appender) = PgStore::new(pool, FastPath::new());
        tokio::spawn(appender.run());
        store
    }

    pub(crate) async fn publish_upload_started(&self, organization: Uuid, file: Uuid) {
        let event = FileUploadStarted {
            organization_id: organization,
            name: "a.csv".into(),
            content_type: "text/csv".into(),
            declared_bytes: 9,
            produced_by_job: None,
        };
        self.publish_file_event(organization, file, event.into()).await;
    }

    pub(crate) async fn publish_upload_completed(&self, organization: Uuid, file: Uuid) {
        let event = FileUploadCompleted { organization_id: organization, bytes: 10 };
        self.publish_file_event(organization, file, event.into()).await;
    }

    pub(crate) async fn publish_file_event(&self, organization: Uuid, file: Uuid, event: FileEvent) {
        self.service.publish("file", file, organization, Timestamp::now(), &[event]).await;
    }

    /// Publishes the events of a complete file of the organization.
    pub(crate) async fn complete_file(&self) -> Uuid {
        let file = Uuid::now_v7();
        self.publish_upload_started(self.organization, file).await;
        self.publish_upload_completed(self.organization, file).await;
        file
    }

    pub(crate) async fn close(self) {
        self.service.close().await;
    }
}

pub(crate) fn id_of(answer: &TestResponse) -> Uuid {
    answer.json()["id"].as_str().unwrap().parse().unwrap()
}

/// Returns the sorted ids as JSON.
pub(crate) fn sorted_json(ids: &[Uuid]) -> Value {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    json!(ids)
}
