//! Each projection is rebuilt by `billing rebuild` while the service goes on, and every answer stays the same or becomes right.

use std::{
    process::{Command, Output},
    sync::Arc,
};

use contracts::{
    file::{self, FileEvent},
    job::{self, FileRole, JobEvent, JobFilesLinked},
};
use epoch::{DomainEvent, FastPath, bus::Bus};
use epoch_postgres::{PgBus, PgStore, PgSubscription, Progress, Rebuild, RebuildProgress};
use rating::calendar::span::{Span, Window};
use serde_json::{Value, json};
use service_host::testkit::SECRET;
use sqlx::PgConnection;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use usage::{
    queries::{groups::GroupBy, snapshot::Snapshot, usage_query::UsageQuery},
    read_models::file_links::FileLinks,
};
use uuid::Uuid;

use crate::{
    accounts::plan,
    support::{Billing, at, few_changes_are, id},
};

const OCTOBER: &str = "from=2025-10-01T00:00:00Z&to=2025-11-01T00:00:00Z&as_of=2025-11-01T00:00:00Z";
/// Everything is known by then; but the question takes several statements.
const KNOWN_AT: &str = "known_at=2100-01-01T00:00:00Z";

/// A billing service that hears of files and jobs, which are told to a rebuild as well, by a bus that both processes reach.
struct Site {
    billing: Billing,
    bus: PgBus,
}

impl Site {
    /// October: two files, one shared by two jobs; September is frozen.
    async fn open() -> Self {
        let billing = Billing::start().await;
        few_changes_are(&billing.service.pool, 1).await;
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
        billing.caught_up(3, 8).await;
        let linked = async || (billing.applied("file-links").await == 8).then_some(());
        billing.service.eventually(linked).await;
        billing.account_opens().await;
        billing.assigned(&plan("0.01")).await;
        let finalize = format!("organizations/{}/invoices/2025-09/finalize", billing.organization);
        billing.admin(&finalize, &json!(null)).await.is(200);
        site
    }

    async fn tell<E: DomainEvent>(&self, aggregate: &'static str, id: Uuid, when: &str, event: E) {
        let organization = self.billing.organization;
        let events = self.billing.service.publish(aggregate, id, organization, at(when), &[event]).await;
        self.bus.publish(&events).await.unwrap();
    }

    async fn file(&self, id: Uuid, when: &str, event: impl Into<FileEvent>) {
        self.tell(file::AGGREGATE, id, when, event.into()).await;
    }

    async fn job(&self, id: Uuid, when: &str, event: impl Into<JobEvent>) {
        self.tell(job::AGGREGATE, id, when, event.into()).await;
    }

    /// Every answer about October, and the invoice of September.
    async fn answers(&self) -> Vec<(String, Value)> {
        let mut asked: Vec<(&str, String)> = vec![
            ("usage", OCTOBER.to_owned()),
            ("usage", format!("{OCTOBER}&{KNOWN_AT}")),
            ("costs", OCTOBER.to_owned()),
            ("invoices/2025-09", String::new()),
            ("invoices/2025-10", String::new()),
            ("invoices", String::new()),
            ("invoices/2025-10/explanation", "date=2025-10-02".to_owned()),
        ];
        for by in ["file", "job", "user", "job_configuration", "machine", "machine_type"] {
            asked.push(("usage/rows", format!("{OCTOBER}&group_by={by}")));
        }
        let mut answers = Vec::new();
        for (what, query) in asked {
            answers.push((format!("{what}?{query}"), self.said(what, &query).await));
        }
        answers
    }

    /// An answer without the instant of a draft.
    async fn said(&self, what: &str, query: &str) -> Value {
        let mut said = self.billing.ask(what, query).await;
        if what.starts_with("invoices/")
            && let Some(as_of) = said.get_mut("as_of")
        {
            as_of.take();
        }
        said
    }

    /// `billing rebuild`, beside the service.
    fn rebuild(&self, subscription: &'static str) -> JoinHandle<Output> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_billing"));
        command.args(["rebuild", subscription, "--json", "--bus", "postgres"]).env("CATACLOUD_LOG", "error");
        command.env("DATABASE_URL", self.billing.service.database.url()).env("CATACLOUD_SECRET", SECRET);
        tokio::task::spawn_blocking(move || command.output().unwrap())
    }

    async fn rebuilt(&self, subscription: &'static str) -> Value {
        let output = self.rebuild(subscription).await.unwrap();
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

/// All projections of billing, and damage that answers show.
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
async fn a_rebuild_heals_what_was_damaged() {
    let site = Site::open().await;
    let right = site.answers().await;
    // A process that goes on has prepared it before.
    let mut reader = site.billing.service.pool.acquire().await.unwrap();
    let sums = async |reader: &mut PgConnection| -> (i64, String) {
        let sums = sqlx::query_as(
            "select count(*), sum(s1 * (meter + 2 * scope + 10 * width))::text from metering_sums where s0 <> 0 or s1 <> 0",
        );
        sums.fetch_one(reader).await.unwrap()
    };
    let right_sums = sums(&mut reader).await;
    for (subscription, damages) in PROJECTIONS {
        for (generation, damage) in (2..).zip(damages) {
            site.run(damage).await;
            let damaged = site.answers().await;
            let differing_now = differing(&damaged, &right);
            assert_ne!(differing_now, [""; 0], "{damage} shows");
            assert!(!differing_now.contains(&"invoices/2025-09?"), "{damage}: what is frozen stays");
            let rebuilt = site.rebuilt(subscription).await;
            assert_eq!(rebuilt["generation"], generation, "{rebuilt}");
            assert_eq!(differing(&site.answers().await, &right), [""; 0], "after {damage}");
            assert_eq!(sums(&mut reader).await, right_sums, "after {damage}");
        }
    }
    drop(reader);
    site.billing.service.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_stay_the_same_while_all_is_rebuilt_and_events_go_on() {
    let site = Site::open().await;
    let (billing, right) = (&site.billing, site.answers().await);
    let mut told = 0;
    for (subscription, _) in PROJECTIONS {
        let rebuild = site.rebuild(subscription);
        while !rebuild.is_finished() {
            let (file, job) = (id(1_000 + told), id(100_000 + told));
            told += 1;
            site.file(file, "2025-11-02T00:00:00Z", billing.part(0, 10)).await;
            site.job(job, "2025-11-02T00:00:00Z", billing.job_started(None)).await;
            site.job(job, "2025-11-02T00:00:01Z", billing.job_succeeded()).await;
            billing.admin("plans", &plan("0.02")).await.is(201);
            assert_eq!(differing(&site.answers().await, &right), [""; 0], "while {subscription} is rebuilt");
        }
        let output = rebuild.await.unwrap();
        assert!(output.status.success(), "{subscription}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(told >= 4, "{told}");
    // What was told meanwhile was counted once. File 2 is stored still.
    let november = "from=2025-11-02T00:00:00Z&to=2025-11-03T00:00:00Z&as_of=2025-11-03T00:00:00Z";
    let byte_ms = ((i128::from(1_000_000_001_u64) + 10 * i128::try_from(told).unwrap()) * 86_400_000).to_string();
    let usage = billing.ask_until("usage", november, "/storage/byte_ms", &byte_ms).await;
    let run_ms = (told * 1_000).to_string();
    let plans = async || {
        let plans: i64 =
            sqlx::query_scalar("select count(*) from plans").fetch_one(&billing.service.pool).await.unwrap();
        // And the account's own, and the standard one.
        (u128::try_from(plans).unwrap() == told + 2).then_some(())
    };
    billing.service.eventually(plans).await;
    if usage["compute"]["run_ms"] != run_ms {
        billing.ask_until("usage", november, "/compute/run_ms", &run_ms).await;
    }
    site.billing.service.close().await;
}

/// What was taken in before event ids were kept has none; a rebuild reads the events again.
#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_finds_the_events_of_what_was_taken_in_without_their_ids() {
    let site = Site::open().await;
    let explained = async || site.said("invoices/2025-10/explanation", "date=2025-10-02").await;
    let right = explained().await;
    for forget in ["update storage_changes set event_id = null", "update job_moments set event_id = null"] {
        site.run(forget).await;
    }
    let without = explained().await;
    let id_of = |said: &Value, pointer: &str| said["intervals"].pointer(pointer).cloned().unwrap();
    let (of_file, of_job) = ("/stored/0/events/0/id", "/ran/0/started/id");
    assert_eq!((id_of(&without, of_file), id_of(&without, of_job)), (Value::Null, Value::Null));
    assert!(id_of(&right, of_file).is_string() && id_of(&right, of_job).is_string(), "{right}");
    for subscription in ["storage-changes", "runs"] {
        site.rebuilt(subscription).await;
    }
    assert_eq!(explained().await, right);
    site.billing.service.close().await;
}

/// A question of several statements began before the swap and goes on after it: it must not see the new table without the rows that
/// are younger than its own beginning.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_goes_on_is_not_overtaken_by_a_swap() {
    let site = Site::open().await;
    let period = Span::new(at("2025-10-01T00:00:00Z"), at("2025-11-01T00:00:00Z"));
    let window = Window { period, as_of: period.end() };
    let asked =
        UsageQuery { organization: site.billing.organization, window, known_at: Some(at("2100-01-01T00:00:00Z")) };
    let pool = site.billing.service.pool.clone();
    let by_job = async |snapshot: &mut Snapshot| snapshot.groups(GroupBy::Job, &[period], None, 10).await.unwrap();
    let right = by_job(&mut Snapshot::of(&pool, asked).await.unwrap()).await;

    let mut going_on = Snapshot::of(&pool, asked).await.unwrap();
    let (store, _) = PgStore::new(pool.clone(), FastPath::new());
    let subscription = PgSubscription::new(Arc::new(FileLinks), store, Progress::new(pool.clone()));
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
    // It tries to swap, and gives way; a lock it waits for is seen by others.
    let waits = "select exists (select from pg_locks where not granted and locktype = 'relation' and mode = 'AccessExclusiveLock')";
    let waits = async || {
        let waits: bool = sqlx::query_scalar(waits).fetch_one(&pool).await.unwrap();
        (waits || rebuild.is_finished()).then_some(())
    };
    site.billing.service.eventually(waits).await;
    assert_eq!(by_job(&mut going_on).await, right);
    drop(going_on);
    assert_eq!(rebuild.await.unwrap().unwrap().generation, 2);
    assert_eq!(by_job(&mut Snapshot::of(&pool, asked).await.unwrap()).await, right);
    site.billing.service.close().await;
}
