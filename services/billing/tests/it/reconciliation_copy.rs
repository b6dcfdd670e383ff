//! Reconciliation of billing's copy of file and job events with the event logs of their owners, the file and the job service.
//!
//! The owners' logs are real event tables, served over HTTP by the streams API that every service has.

use std::{net::SocketAddr, sync::Arc};

use contracts::{
    file::{self, FileEvent},
    job::{self, FileRole, JobEvent, JobFilesLinked, JobFilesUnlinked},
};
use epoch::{
    CommandContext, DomainEvent, Envelope, Timestamp, Version, Versions,
    bus::Bus,
    local::LocalBus,
    store::{Append, Appended, Appender, NewEvent, Streamer},
};
use epoch_postgres::{PgStore, testkit::TestDatabase};
use futures::TryStreamExt;
use http_kit::{Secrets, server};
use serde_json::{Value, json};
use service_host::{
    peer::Peer,
    streams::{StreamClient, routes},
    testkit::SECRET,
};
use sqlx::PgPool;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use usage::reconciliation::{copy::Copies, step::Look};
use uuid::Uuid;

use crate::{
    reconciliation_report::report,
    support::{Billing, DAY, at, id},
};

/// The event logs of the file and the job service.
struct Owners {
    database: TestDatabase,
    pool: PgPool,
    store: PgStore,
    address: SocketAddr,
    serving: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Owners {
    async fn start() -> Self {
        let database = TestDatabase::create().await;
        let pool = database.epoch().await;
        let (store, appender) = PgStore::new(pool.clone(), LocalBus::new());
        tokio::spawn(appender.run());
        let mut owners = Self { database, pool, store, address: SocketAddr::from(([127, 0, 0, 1], 0)), serving: None };
        owners.serve().await;
        owners
    }

    /// Serves the logs, on the same address as before if there was one.
    async fn serve(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let secrets = Secrets::new(SECRET).unwrap();
        let files = routes("file", vec![file::AGGREGATE], self.store.clone(), secrets.clone());
        let jobs = routes("job", vec![job::AGGREGATE], self.store.clone(), secrets);
        let router = server::finish(files.merge(jobs));
        let stop = CancellationToken::new();
        let served = server::serve(listener, router, stop.clone());
        self.serving = Some((stop, tokio::spawn(async move { served.await.unwrap() })));
    }

    /// Stops serving the logs.
    async fn stop_serving(&mut self) {
        let (stop, served) = self.serving.take().unwrap();
        stop.cancel();
        served.await.unwrap();
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    async fn append<E: DomainEvent>(
        &self,
        aggregate: &'static str,
        (id, organization): (Uuid, Uuid),
        when: &str,
        event: E,
    ) -> Arc<Envelope> {
        let past: Vec<_> = self.store.read(aggregate, id, Versions::all()).try_collect().await.unwrap();
        let append = Append {
            aggregate,
            aggregate_id: id,
            expected: Version::ZERO.after(past.len()),
            previous: None,
            events: vec![NewEvent::encode(&event).unwrap()],
            context: CommandContext::at(at(when)).for_tenant(organization).by("service:test"),
        };
        let Ok(Appended::Committed { events, .. }) = self.store.append(append).await else { panic!("not appended") };
        events[0].clone()
    }

    /// Moves the recording times of these aggregates back.
    async fn backdate(&self, ids: &[Uuid], millis: i64) {
        let update = "update events set recorded_at = recorded_at - $2 where aggregate_id = any($1)";
        sqlx::query(update).bind(ids).bind(millis).execute(&self.pool).await.unwrap();
    }

    /// Reads the whole stream of an aggregate.
    async fn read_stream(&self, aggregate: &'static str, id: Uuid) -> Vec<Arc<Envelope>> {
        self.store.read(aggregate, id, Versions::all()).map_ok(Arc::new).try_collect().await.unwrap()
    }
}

/// Billing, the owners of its events, and a copy check that the test steps.
struct Site {
    owners: Owners,
    billing: Billing,
    copies: Copies,
}

impl Site {
    async fn start() -> Self {
        let owners = Owners::start().await;
        let url = owners.url();
        let billing = Billing::start_with(&["--file-url", &url, "--job-url", &url]).await;
        let peer = || Peer::new("billing", url.parse().unwrap(), Secrets::new(SECRET).unwrap()).unwrap();
        let files = StreamClient::new(peer(), "file", file::AGGREGATE);
        let jobs = StreamClient::new(peer(), "job", job::AGGREGATE);
        let copies = Copies::new(billing.service.pool.clone(), files, jobs);
        Self { owners, billing, copies }
    }

    async fn publish(&self, events: &[Arc<Envelope>]) {
        self.billing.service.shared.memory.publish(events).await.unwrap();
    }

    /// Records an event of a file and publishes it to billing.
    async fn file(&self, file: Uuid, when: &str, event: impl Into<FileEvent>) -> Arc<Envelope> {
        let event = self.record_file(file, when, event).await;
        self.publish(std::slice::from_ref(&event)).await;
        event
    }

    async fn job(&self, job: Uuid, when: &str, event: impl Into<JobEvent>) -> Arc<Envelope> {
        let event = self.record_job(job, when, event).await;
        self.publish(std::slice::from_ref(&event)).await;
        event
    }

    /// Records an event of a file without publishing it.
    async fn record_file(&self, file: Uuid, when: &str, event: impl Into<FileEvent>) -> Arc<Envelope> {
        self.owners.append(file::AGGREGATE, (file, self.billing.organization), when, event.into()).await
    }

    async fn record_job(&self, job: Uuid, when: &str, event: impl Into<JobEvent>) -> Arc<Envelope> {
        self.owners.append(job::AGGREGATE, (job, self.billing.organization), when, event.into()).await
    }

    /// Records usage of two files and two jobs. Returns the deletion of file 1 and the end of job 11.
    async fn record_usage(&self) -> [Arc<Envelope>; 2] {
        let (billing, organization_id) = (&self.billing, self.billing.organization);
        self.file(id(1), "2025-10-26T10:00:00Z", billing.started()).await;
        self.file(id(1), "2025-10-26T10:00:00Z", billing.part(0, 1_000)).await;
        self.file(id(1), "2025-10-26T10:00:01Z", billing.completed(1_000)).await;
        let deleted = self.file(id(1), "2025-10-26T11:00:00Z", billing.deleted(1_000)).await;
        self.file(id(2), "2025-10-26T10:00:00.123Z", billing.part(0, 77)).await;
        self.job(id(11), "2025-10-26T10:00:00Z", billing.job_created()).await;
        let links = JobFilesLinked { organization_id, file_ids: vec![id(1), id(2)], role: FileRole::Input };
        self.job(id(11), "2025-10-26T10:00:00Z", links).await;
        self.job(id(11), "2025-10-26T10:00:00Z", billing.job_started(Some(id(21)))).await;
        let ended = self.job(id(11), "2025-10-26T12:00:00Z", billing.job_succeeded()).await;
        let unlinked = JobFilesUnlinked { organization_id, file_ids: vec![id(1)], role: FileRole::Input };
        self.job(id(11), "2025-10-26T12:00:01Z", unlinked).await;
        self.job(id(12), "2025-10-26T12:00:00Z", billing.job_started(None)).await;
        self.wait_until_applied(5, 6).await;
        [deleted, ended]
    }

    /// Waits until billing has applied exactly this many events of files and of jobs, links included.
    async fn wait_until_applied(&self, files: i64, jobs: i64) {
        self.billing.wait_until_applied(files, jobs).await;
        self.billing.wait_until_linked(jobs).await;
    }

    async fn report(&self) -> Value {
        report(&self.billing).await
    }

    /// Steps the check, concurrently with the service, until another full round is done. Returns the differences of the copy.
    async fn check_all(&self) -> Vec<Value> {
        let initial = self.report().await;
        loop {
            let state = self.report().await;
            let round = |state: &Value, aggregate: &str| state["copy"][aggregate]["round"].as_i64().unwrap();
            let to_do: Vec<_> = ["file", "job"]
                .into_iter()
                .filter(|aggregate| round(&state, aggregate) < round(&initial, aggregate) + 2)
                .collect();
            if to_do.is_empty() {
                let all = state["differences"].as_array().unwrap().clone();
                return all.into_iter().filter(|difference| difference["side"] == "copy").collect();
            }
            for aggregate in to_do {
                assert_ne!(self.copies.check_next(aggregate).await.unwrap(), Look::Unreachable);
            }
        }
    }

    async fn run(&self, sql: &str) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&self.billing.service.pool).await.unwrap();
    }

    async fn close(mut self) {
        self.billing.service.close().await;
        self.owners.stop_serving().await;
        self.owners.database.drop().await;
    }
}

/// Returns a time-ordered id generated this many milliseconds ago.
fn id_from_past(millis_ago: i64, number: u128) -> Uuid {
    let at = u128::from((Timestamp::now().as_millis() - millis_ago).cast_unsigned());
    Uuid::from_u128((at << 80) | 0x7000_8000_0000_0000_0000 | number)
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_is_equal_when_it_matches_its_owners() {
    let site = Site::start().await;
    site.record_usage().await;
    // An invalid size has no row in the copy. Here it holds its file back; skipping the event leaves no row, either.
    site.file(id(3), "2025-10-26T10:00:00Z", site.billing.part(0, -5)).await;
    assert_eq!(site.check_all().await, Vec::<Value>::new());
    let state = site.report().await;
    assert_eq!((&state["equal"], &state["copy"]["file"]["unreachable_since"]), (&json!(true), &Value::Null));
    for (aggregate, rows) in [("file", 5), ("job", 10)] {
        let copy = &state["copy"][aggregate];
        assert!(copy["rows_compared"].as_i64().unwrap() >= rows && copy["checks"].as_i64().unwrap() >= 2, "{copy}");
        assert!(copy["last_check_at"].is_string() && copy["skipped"] == 0, "{copy}");
    }
    // Rows from before event ids were stored count as equal.
    site.run(
        "update storage_changes set event_id = null; update job_moments set event_id = null; \
              update file_link_changes set event_id = null",
    )
    .await;
    assert_eq!(site.check_all().await, Vec::<Value>::new());
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_check_reports_every_corrupt_row() {
    let site = Site::start().await;
    let [deleted, ended] = site.record_usage().await;
    let organization = site.billing.organization;
    let (file, job) = (id(1), id(11));
    let change = format!("storage_changes file {file} event {}", deleted.event_id);
    let created = format!("metered_jobs job {job}");
    let end = format!("job_moments job {job} version {}", ended.version);
    let link = format!("file_link_changes file {} job {job} role 1 version 2", id(2));
    // Table, corruption, expected place, and parts of the stored and the recomputed text.
    let corruptions = [
        (
            "storage_changes",
            "delete from storage_changes where delta_bytes < 0",
            change.as_str(),
            "nothing",
            "delta -1000",
        ),
        (
            "storage_changes",
            "update storage_changes set delta_bytes = -999 where delta_bytes < 0",
            &change,
            "delta -999 ",
            "delta -1000 ",
        ),
        (
            "storage_changes",
            "update storage_changes set at = at + 1 where delta_bytes < 0",
            &change,
            "at 1761476400001",
            "at 1761476400000",
        ),
        (
            "storage_changes",
            "update storage_changes set recorded_at = 7 where delta_bytes < 0",
            &change,
            "recorded 7",
            "delta -1000",
        ),
        (
            "storage_changes",
            "insert into storage_changes select * from storage_changes where delta_bytes < 0",
            &change,
            ", organization",
            "delta -1000",
        ),
        (
            "storage_changes",
            "update storage_changes set organization_id = file_id where delta_bytes < 0",
            &change,
            "",
            "delta -1000",
        ),
        (
            "storage_changes",
            "update storage_changes set event_id = file_id where delta_bytes < 0",
            &change,
            "nothing",
            "delta -1000",
        ),
        ("storage_changes", "delete from storage_changes", &change, "nothing", "delta -1000"),
        ("job_moments", "delete from job_moments where kind = 2", &end, "nothing", "kind 2"),
        ("metered_jobs", "delete from metered_jobs", &created, "nothing", "user none"),
        ("metered_jobs", "update metered_jobs set user_id = job_id", &created, "user 01990000", "user none"),
        (
            "job_moments",
            "update job_moments set at = at - 1 where kind = 2",
            &end,
            "at 1761479999999",
            "at 1761480000000",
        ),
        ("job_moments", "update job_moments set kind = 3 where kind = 2", &end, "kind 3", "kind 2"),
        ("job_moments", "update job_moments set machine_type = 'big' where kind = 2", &end, "type big", "type none"),
        ("file_link_changes", "delete from file_link_changes where version = 2", &link, "nothing", "linked true"),
        (
            "file_link_changes",
            "update file_link_changes set linked = false where version = 2",
            &link,
            "linked false",
            "linked true",
        ),
    ];
    for (table, corrupt, place, stored, recomputed) in corruptions {
        site.run(&format!("create table saved as select * from {table}; {corrupt}")).await;
        let differences = site.check_all().await;
        let named = differences.iter().find(|difference| difference["place"] == place);
        let named = named.unwrap_or_else(|| panic!("{corrupt}: {differences:?}"));
        let text = |field: &str| named[field].as_str().unwrap();
        assert!(text("kept").contains(stored) && text("recomputed").contains(recomputed), "{corrupt}: {named}");
        assert_eq!(named["organization"], organization.to_string());
        site.run(&format!("delete from {table}; insert into {table} select * from saved; drop table saved")).await;
        assert_eq!(site.check_all().await, Vec::<Value>::new(), "{corrupt}");
    }
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_check_reports_rows_unknown_to_the_owners() {
    let site = Site::start().await;
    site.record_usage().await;
    let (organization, unknown) = (site.billing.organization, id(77));
    let added = [
        (
            format!("insert into storage_changes values ('{organization}', '{unknown}', 5, 9, 5, '{unknown}')"),
            format!("storage_changes file {unknown} event {unknown}"),
            format!("delete from storage_changes where file_id = '{unknown}'"),
        ),
        (
            format!("insert into metered_jobs values ('{unknown}', '{organization}', '{unknown}')"),
            format!("metered_jobs job {unknown}"),
            format!("delete from metered_jobs where job_id = '{unknown}'"),
        ),
        (
            format!(
                "update cursors set version = 9 where subscription = 'storage-changes' and aggregate_id = '{}'",
                id(1)
            ),
            format!("cursors of storage-changes file {}", id(1)),
            format!(
                "update cursors set version = 4 where subscription = 'storage-changes' and aggregate_id = '{}'",
                id(1)
            ),
        ),
    ];
    for (add, place, remove) in added {
        site.run(&add).await;
        let differences = site.check_all().await;
        let places: Vec<_> = differences.iter().map(|difference| difference["place"].as_str().unwrap()).collect();
        assert_eq!(places, [place]);
        site.run(&remove).await;
        assert_eq!(site.check_all().await, Vec::<Value>::new(), "{remove}");
    }
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_check_reports_a_stream_gap_and_continues() {
    let site = Site::start().await;
    site.record_usage().await;
    let remove_event = format!(
        "create table removed as select * from events where aggregate_id = '{}' and version = 2; \
         delete from events where event_id in (select event_id from removed)",
        id(1)
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(remove_event)).execute(&site.owners.pool).await.unwrap();
    site.run(&format!("update storage_changes set delta_bytes = 78 where file_id = '{}'", id(2))).await;
    let differences = site.check_all().await;
    let mut places: Vec<_> =
        differences.iter().map(|difference| difference["place"].as_str().unwrap().to_owned()).collect();
    places.sort_unstable();
    assert_eq!(places.len(), 2, "{differences:?}");
    assert!(places[0].starts_with(&format!("storage_changes file {} event ", id(2))));
    assert_eq!(places[1], format!("stream of file {} as its owner has it", id(1)));
    let restore_event = "insert into events overriding system value select * from removed";
    sqlx::raw_sql(restore_event).execute(&site.owners.pool).await.unwrap();
    site.run("update storage_changes set delta_bytes = 77 where delta_bytes = 78").await;
    assert_eq!(site.check_all().await, Vec::<Value>::new());
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_check_reports_events_billing_never_received() {
    let site = Site::start().await;
    site.record_usage().await;
    let (file, job, tail) = (id(31), id(32), id(2));
    site.record_file(file, "2025-10-27T10:00:00Z", site.billing.part(0, 5)).await;
    site.record_job(job, "2025-10-27T10:00:00Z", site.billing.job_created()).await;
    site.record_job(job, "2025-10-27T10:00:00Z", site.billing.job_started(None)).await;
    let deleted = site.record_file(tail, "2025-10-27T10:00:00Z", site.billing.deleted(77)).await;
    // A recent event may still be in delivery.
    assert_eq!(site.check_all().await, Vec::<Value>::new());

    site.owners.backdate(&[file, job], 2 * DAY).await;
    let update = "update events set recorded_at = recorded_at - $2 where event_id = $1";
    sqlx::query(update).bind(deleted.event_id).bind(2 * DAY).execute(&site.owners.pool).await.unwrap();
    let differences = site.check_all().await;
    let mut differences: Vec<_> = differences
        .iter()
        .map(|difference| ["place", "kept", "recomputed"].map(|field| difference[field].as_str().unwrap()))
        .collect();
    differences.sort_unstable();
    let expected = [
        [format!("cursors of file-links job {job}"), "version 0".into(), "version 2".into()],
        [format!("cursors of runs job {job}"), "version 0".into(), "version 2".into()],
        [format!("cursors of storage-changes file {tail}"), "version 1".into(), "version 2".into()],
        [format!("cursors of storage-changes file {file}"), "version 0".into(), "version 1".into()],
    ];
    assert_eq!(differences, expected);

    // Billing receives the events after all.
    for (aggregate, id) in [(file::AGGREGATE, file), (file::AGGREGATE, tail), (job::AGGREGATE, job)] {
        site.publish(&site.owners.read_stream(aggregate, id).await).await;
    }
    site.wait_until_applied(7, 8).await;
    assert_eq!(site.check_all().await, Vec::<Value>::new());
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_is_no_difference_until_a_later_event_is_applied() {
    let site = Site::start().await;
    let minutes = |minutes: i64| minutes * 60_000;
    // The last event that billing applied is an hour old, so later events count as still in delivery.
    site.file(id_from_past(minutes(60), 1), "2025-10-27T10:00:00Z", site.billing.part(0, 5)).await;
    let late = id_from_past(minutes(25), 2);
    site.record_file(late, "2025-10-27T10:00:00Z", site.billing.part(0, 5)).await;
    site.owners.backdate(&[late], minutes(25)).await;
    site.wait_until_applied(1, 0).await;
    assert_eq!(site.check_all().await, Vec::<Value>::new());
    // Billing has applied a later event, so the earlier one was skipped.
    site.file(id_from_past(minutes(1), 3), "2025-10-27T10:00:00Z", site.billing.part(0, 5)).await;
    site.wait_until_applied(2, 0).await;
    let differences = site.check_all().await;
    let places: Vec<_> = differences.iter().map(|difference| difference["place"].as_str().unwrap()).collect();
    assert_eq!(places, [format!("cursors of storage-changes file {late}")]);
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_owner_is_counted_without_a_difference() {
    let mut site = Site::start().await;
    site.record_usage().await;
    site.check_all().await;
    site.owners.stop_serving().await;
    // A step that began before the owner stopped ends or fails.
    let unreachable = async || {
        let outcome = site.copies.check_next("file").await.unwrap();
        (outcome == Look::Unreachable).then_some(())
    };
    site.billing.service.eventually(unreachable).await;
    let before = site.report().await["copy"]["file"].clone();
    site.run("delete from storage_changes").await;
    for _ in 0..3 {
        let outcome = site.copies.check_next("file").await.unwrap();
        assert!(matches!(outcome, Look::Unreachable | Look::Elsewhere), "{outcome:?}");
    }
    let state = site.report().await;
    let copy = &state["copy"]["file"];
    assert!(copy["unreachable"].as_i64() > before["unreachable"].as_i64(), "{copy}");
    assert_eq!(copy["unreachable_since"], before["unreachable_since"]);
    assert!(copy["unreachable_why"].as_str().unwrap().contains("no response from http://"), "{copy}");
    assert_eq!(
        (&copy["round"], &copy["stream"]),
        (&before["round"], &before["stream"]),
        "the check does not advance past an unreachable stream"
    );
    assert_eq!(copy["difference_count"], 0);

    site.owners.serve().await;
    let differences = site.check_all().await;
    assert_eq!(differences.len(), 3, "differences from the outage are found: {differences:?}");
    assert_eq!(site.report().await["copy"]["file"]["unreachable_since"], Value::Null);
    site.close().await;
}
