//! `billing rebuild` concurrent with a running service: every response stays the same or is repaired.

use std::{
    process::{Command, Output},
    sync::Arc,
};

use contracts::{
    file::{self, FileEvent},
    job::{self, FileRole, JobEvent, JobFilesLinked},
};
use epoch::{DomainEvent, FastPath, bus::Bus};
use epoch_postgres::{PgBus, PgStore, PgSubscription, Progress, ProjectionHandler, Rebuild, RebuildProgress};
use rating::calendar::span::{Span, Window};
use serde_json::Value;
use service_host::testkit::SECRET;
use sqlx::PgConnection;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use usage::{
    queries::{groups::GroupBy, snapshot::Snapshot, usage_query::UsageQuery},
    read_models::file_links::FileLinks,
};
use uuid::Uuid;

use crate::support::{Billing, at, id, set_rollup_threshold, team_plan};

const OCTOBER: &str = "from=2025-10-01T00:00:00Z&to=2025-11-01T00:00:00Z&as_of=2025-11-01T00:00:00Z";
/// Later than all recordings. A query with `known_at` takes several statements.
const KNOWN_AT: &str = "known_at=2100-01-01T00:00:00Z";

/// A billing service, and a Postgres bus from which the rebuild process reads the same file and job events.
struct Site {
    billing: Billing,
    bus: PgBus,
}

impl Site {
    /// Records two files in October, one of them shared by two jobs, and finalizes September.
    async fn open() -> Self {
        let billing = Billing::start().await;
        set_rollup_threshold(&billing.service.pool, 1).await;
        let bus = PgBus::connect(billing.service.pool.clone(), "catacloud", "others").await.unwrap();
        let site = Self { billing, bus };
        let billing = &site.billing;
        site.file(id(1), "2025-09-20T00:00:00Z", billing.part(0, 3_000_000_000)).await;
        site.file(id(1), "2025-10-20T05:00:00Z", billing.deleted(3_000_000_000)).await;
        site.file(id(2), "2025-10-02T07:30:00Z", billing.part(0, 1_000_000_001)).await;
        for (job, user) in [(11, Some(id(21))), (12, None)] {
            site.job(id(job), "2025-10-02T08:00:00Z", billing.job_created()).await;
            let links =
                JobFilesLinked { organization_id: billing.organization, file_ids: vec![id(1)], role: FileRole::Input };
            site.job(id(job), "2025-10-02T08:00:01Z", links).await;
            site.job(id(job), "2025-10-02T09:00:00Z", billing.job_started(user)).await;
        }
        site.job(id(11), "2025-10-03T09:00:00.123Z", billing.job_succeeded()).await;
        site.job(id(12), "2025-10-02T08:59:59Z", billing.job_succeeded()).await;
        billing.wait_until_applied(3, 8).await;
        billing.wait_until_linked(8).await;
        billing.open_account().await;
        billing.assign_plan(&team_plan("0.01")).await;
        billing.finalize_invoice("2025-09").await;
        site
    }

    async fn publish<E: DomainEvent>(&self, aggregate: &'static str, id: Uuid, when: &str, event: E) {
        let organization = self.billing.organization;
        let events = self.billing.service.publish(aggregate, id, organization, at(when), &[event]).await;
        self.bus.publish(&events).await.unwrap();
    }

    async fn file(&self, id: Uuid, when: &str, event: impl Into<FileEvent>) {
        self.publish(file::AGGREGATE, id, when, event.into()).await;
    }

    async fn job(&self, id: Uuid, when: &str, event: impl Into<JobEvent>) {
        self.publish(job::AGGREGATE, id, when, event.into()).await;
    }

    /// Returns all responses about October, and the invoice of September.
    async fn responses(&self) -> Vec<(String, Value)> {
        let mut requests: Vec<(&str, String)> = vec![
            ("usage", OCTOBER.to_owned()),
            ("usage", format!("{OCTOBER}&{KNOWN_AT}")),
            ("costs", OCTOBER.to_owned()),
            ("invoices/2025-09", String::new()),
            ("invoices/2025-10", String::new()),
            ("invoices", String::new()),
            ("invoices/2025-10/explanation", "date=2025-10-02".to_owned()),
        ];
        for by in ["file", "job", "user", "job_configuration", "machine", "machine_type"] {
            requests.push(("usage/rows", format!("{OCTOBER}&group_by={by}")));
        }
        let mut responses = Vec::new();
        for (resource, query) in requests {
            responses.push((format!("{resource}?{query}"), self.response(resource, &query).await));
        }
        responses
    }

    /// Returns a response without `as_of` of a draft, which differs between requests.
    async fn response(&self, resource: &str, query: &str) -> Value {
        let mut response = self.billing.get_json(resource, query).await;
        if resource.starts_with("invoices/")
            && let Some(as_of) = response.get_mut("as_of")
        {
            as_of.take();
        }
        response
    }

    /// Starts `billing rebuild` while the service runs.
    fn spawn_rebuild(&self, subscription: &'static str) -> JoinHandle<Output> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_billing"));
        command.args(["rebuild", subscription, "--json", "--bus", "postgres"]).env("CATACLOUD_LOG", "error");
        command.env("DATABASE_URL", self.billing.service.database.url()).env("CATACLOUD_SECRET", SECRET);
        tokio::task::spawn_blocking(move || command.output().unwrap())
    }

    async fn rebuild(&self, subscription: &'static str) -> Value {
        let output = self.spawn_rebuild(subscription).await.unwrap();
        assert!(output.status.success(), "{subscription}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    async fn run(&self, damage: &'static str) {
        let done = sqlx::raw_sql(damage).execute(&self.billing.service.pool).await.unwrap();
        assert!(done.rows_affected() > 0, "{damage}");
    }
}

fn differing<'a>(left: &'a [(String, Value)], right: &[(String, Value)]) -> Vec<&'a str> {
    let pairs = left.iter().zip(right).filter(|(left, right)| left != right);
    pairs.map(|((question, _), _)| question.as_str()).collect()
}

/// All projections of billing, with corruptions that responses show.
const PROJECTIONS: [(&str, &[&str]); 4] = [
    (
        "storage-changes",
        &[
            "update metering_storage_sums set s0 = s0 + 1, s1 = s1 - 7",
            "delete from storage_changes",
            "update metering_files set s0 = s0 * 3",
            "update metering_file_sums set s1 = s1 + 7",
        ],
    ),
    (
        "runs",
        &[
            "update metering_run_sums set s1 = s1 - 7000",
            "update runs set ended_at = ended_at + 1000",
            "delete from metered_jobs",
            "delete from job_moments",
            "update machine_types set name = name || '!'",
        ],
    ),
    ("file-links", &["update file_link_changes set linked = not linked where job_id::text like '%00b'"]),
    ("accounts", &["update invoices set status = 'void', number = 77"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn rebuild_repairs_damaged_projections() {
    let site = Site::open().await;
    let right = site.responses().await;
    // A connection with a statement prepared before the rebuild, as a running process has it.
    let mut reader = site.billing.service.pool.acquire().await.unwrap();
    let rollup_digest = async |reader: &mut PgConnection| -> (i64, String) {
        let digest = sqlx::query_as(
            "select count(*), sum(s1 * (meter + 2 * scope + 10 * width))::text from metering_sums where s0 <> 0 or s1 <> 0",
        );
        digest.fetch_one(reader).await.unwrap()
    };
    let right_digest = rollup_digest(&mut reader).await;
    for (subscription, damages) in PROJECTIONS {
        for (generation, damage) in (2..).zip(damages) {
            site.run(damage).await;
            let damaged = site.responses().await;
            let changed = differing(&damaged, &right);
            assert_ne!(changed, [""; 0], "{damage} shows in responses");
            assert!(!changed.contains(&"invoices/2025-09?"), "{damage}: the finalized invoice stays");
            let rebuilt = site.rebuild(subscription).await;
            assert_eq!(rebuilt["generation"], generation, "{rebuilt}");
            assert_eq!(differing(&site.responses().await, &right), [""; 0], "after {damage}");
            assert_eq!(rollup_digest(&mut reader).await, right_digest, "after {damage}");
        }
    }
    drop(reader);
    site.billing.service.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_stay_equal_during_rebuilds_and_new_events() {
    let site = Site::open().await;
    let (billing, right) = (&site.billing, site.responses().await);
    let mut published = 0;
    for (subscription, _) in PROJECTIONS {
        let rebuild = site.spawn_rebuild(subscription);
        while !rebuild.is_finished() {
            let (file, job) = (id(1_000 + published), id(100_000 + published));
            published += 1;
            site.file(file, "2025-11-02T00:00:00Z", billing.part(0, 10)).await;
            site.job(job, "2025-11-02T00:00:00Z", billing.job_started(None)).await;
            site.job(job, "2025-11-02T00:00:01Z", billing.job_succeeded()).await;
            billing.post_admin("plans", &team_plan("0.02")).await.is(201);
            assert_eq!(differing(&site.responses().await, &right), [""; 0], "while {subscription} is rebuilt");
        }
        let output = rebuild.await.unwrap();
        assert!(output.status.success(), "{subscription}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(published >= 4, "{published}");
    // Events published during the rebuilds count once. File 2 is still stored.
    let november = "from=2025-11-02T00:00:00Z&to=2025-11-03T00:00:00Z&as_of=2025-11-03T00:00:00Z";
    let byte_ms = ((i128::from(1_000_000_001_u64) + 10 * i128::try_from(published).unwrap()) * 86_400_000).to_string();
    let usage = billing.get_until("usage", november, "/storage/byte_ms", &byte_ms).await;
    let run_ms = (published * 1_000).to_string();
    let plans = async || {
        let plans: i64 =
            sqlx::query_scalar("select count(*) from plans").fetch_one(&billing.service.pool).await.unwrap();
        // The other two plans are the plan of the account and the standard plan.
        (u128::try_from(plans).unwrap() == published + 2).then_some(())
    };
    billing.service.eventually(plans).await;
    if usage["compute"]["run_ms"] != run_ms {
        billing.get_until("usage", november, "/compute/run_ms", &run_ms).await;
    }
    site.billing.service.close().await;
}

/// Rows from before event ids were stored have none. A rebuild reads the events again and restores the ids.
#[tokio::test(flavor = "multi_thread")]
async fn rebuild_restores_missing_event_ids() {
    let site = Site::open().await;
    let explanation = async || site.response("invoices/2025-10/explanation", "date=2025-10-02").await;
    let right = explanation().await;
    for forget in ["update storage_changes set event_id = null", "update job_moments set event_id = null"] {
        site.run(forget).await;
    }
    let without_ids = explanation().await;
    let id_of = |explanation: &Value, pointer: &str| explanation["intervals"].pointer(pointer).cloned().unwrap();
    let (of_file, of_job) = ("/stored/0/events/0/id", "/ran/0/started/id");
    assert_eq!((id_of(&without_ids, of_file), id_of(&without_ids, of_job)), (Value::Null, Value::Null));
    assert!(id_of(&right, of_file).is_string() && id_of(&right, of_job).is_string(), "{right}");
    for subscription in ["storage-changes", "runs"] {
        site.rebuild(subscription).await;
    }
    assert_eq!(explanation().await, right);
    site.billing.service.close().await;
}

/// A query of several statements begins before the swap of tables and continues after it.
///
/// Its snapshot does not show the rows of the new table, which are younger than the snapshot. So it must not read that table.
#[tokio::test(flavor = "multi_thread")]
async fn running_query_is_unaffected_by_the_table_swap() {
    let site = Site::open().await;
    let period = Span::new(at("2025-10-01T00:00:00Z"), at("2025-11-01T00:00:00Z"));
    let window = Window { period, as_of: period.end() };
    let usage_query =
        UsageQuery { organization: site.billing.organization, window, known_at: Some(at("2100-01-01T00:00:00Z")) };
    let pool = site.billing.service.pool.clone();
    let by_job = async |snapshot: &mut Snapshot| snapshot.groups(GroupBy::Job, &[period], None, 10).await.unwrap();
    let right = by_job(&mut Snapshot::of(&pool, usage_query).await.unwrap()).await;

    let mut running = Snapshot::of(&pool, usage_query).await.unwrap();
    let (store, _) = PgStore::new(pool.clone(), FastPath::new());
    let subscription = PgSubscription::new(Arc::new(ProjectionHandler(FileLinks)), store, Progress::new(pool.clone()));
    let bus = PgBus::connect(pool.clone(), "catacloud", "billing").await.unwrap();
    let (built, is_built) = tokio::sync::watch::channel(false);
    let rebuild = tokio::spawn(async move {
        let rebuild = Rebuild::new(subscription, Some(Arc::new(bus)));
        let report = |progress: &RebuildProgress| {
            built.send_replace(progress.done >= progress.total);
        };
        rebuild.run(&CancellationToken::new(), report).await
    });
    let is_built = async || (*is_built.borrow()).then_some(());
    site.billing.service.eventually(is_built).await;
    // The rebuild tries to swap and backs off. Its wait for the lock is visible in `pg_locks`.
    let query = "select exists (select from pg_locks where not granted and locktype = 'relation' and mode = 'AccessExclusiveLock')";
    let waiting = async || {
        let waits: bool = sqlx::query_scalar(query).fetch_one(&pool).await.unwrap();
        (waits || rebuild.is_finished()).then_some(())
    };
    site.billing.service.eventually(waiting).await;
    assert_eq!(by_job(&mut running).await, right);
    drop(running);
    assert_eq!(rebuild.await.unwrap().unwrap().generation, 2);
    assert_eq!(by_job(&mut Snapshot::of(&pool, usage_query).await.unwrap()).await, right);
    site.billing.service.close().await;
}
