//! `kill -9` of relays, of projection workers and of the broker, in the middle of 20,000 events. Afterwards every read
//! model equals the one computed from the streams.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use contracts::{
    file::{FileDeleted, FileEvent, FilePartUploaded, FileUploadCompleted, FileUploadStarted},
    organization::{MemberAdded, OrganizationCreated, OrganizationEvent, Role},
};
use epoch::{
    CommandContext, Position, Version,
    local::LocalBus,
    store::{Append, Appended, Appender, NewEvent, Streamer},
};
use epoch_postgres::{PgStore, connect, testkit::TestDatabase};
use futures::TryStreamExt;
use sqlx::{PgPool, Row, postgres::PgPoolOptions};
use uuid::Uuid;

use crate::{
    broker::Broker,
    installation::{Process, Site, test_kafka, within},
};

const FILES: usize = 400;
const PARTS: usize = 48;
/// Started, parts, completed, and for every second file deleted.
const EVENTS: usize = FILES * (PARTS + 2) + FILES / 2;
const ORGANIZATIONS: usize = 5;

async fn pool(database: &TestDatabase, schema: &str) -> PgPool {
    connect(PgPoolOptions::new().max_connections(10), database.options(), schema).await.unwrap()
}

async fn append(store: &PgStore, aggregate: &'static str, id: Uuid, tenant: Uuid, at: usize, events: Vec<NewEvent>) {
    let context = CommandContext::new().for_tenant(tenant).by("service:test");
    let append =
        Append { aggregate, aggregate_id: id, expected: Version::ZERO.after(at), previous: None, events, context };
    let appended = store.append(append).await.unwrap();
    assert!(matches!(appended, Appended::Committed { .. }), "{appended:?}");
}

fn encoded(events: &[FileEvent]) -> Vec<NewEvent> {
    events.iter().map(|event| NewEvent::encode(event).unwrap()).collect()
}

/// The life of one file, event by event.
fn life(organization_id: Uuid, number: usize) -> Vec<FileEvent> {
    let part_bytes = 1_000 + number as i64;
    let bytes = part_bytes * PARTS as i64;
    let started = FileUploadStarted {
        organization_id,
        name: format!("file-{number}"),
        content_type: "text/plain".into(),
        declared_bytes: bytes,
        produced_by_job: None,
    };
    let mut events: Vec<FileEvent> = vec![started.into()];
    for part in 0..PARTS {
        let part = FilePartUploaded {
            organization_id,
            part_id: Uuid::now_v7(),
            offset: part as i64 * part_bytes,
            bytes: part_bytes,
            sha256: "0".repeat(64),
        };
        events.push(part.into());
    }
    events.push(FileUploadCompleted { organization_id, bytes }.into());
    if number.is_multiple_of(2) {
        events.push(FileDeleted { organization_id, bytes }.into());
    }
    events
}

/// Processes that are killed and started again.
struct Workers {
    // Before the site, whose directory has their logs.
    running: BTreeMap<&'static str, Process>,
    site: Site,
}

impl Workers {
    /// `relay-a` and `relay-b` are both relays of the file service: one leads, one waits.
    fn start(&mut self, name: &'static str) {
        let (binary, role) = match name {
            "relay-a" | "relay-b" => ("file", "relay"),
            "organization-relay" => ("organization", "relay"),
            other => (other, "project"),
        };
        let process = self.site.start(binary, &[role], &[]);
        self.running.insert(name, process);
    }

    fn kill(&mut self, name: &'static str) {
        self.running.remove(name).unwrap().kill();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_read_model_equals_the_streams_after_kills_in_the_middle_of_20_000_events() {
    let database = TestDatabase::create().await;
    let directory = tempfile::TempDir::new().unwrap();
    // Where there is no Kafka there is no broker to kill either; the workers are killed all the same.
    let broker = test_kafka().map(|_| Broker::start(directory.path().join("broker")));
    let site = Site::new(database.url(), broker.as_ref().map(|broker| broker.address.clone()));
    for service in ["organization", "file", "billing"] {
        site.run(service, &["migrate"]);
    }
    let (files, organizations) = (pool(&database, "file").await, pool(&database, "organization").await);
    let (store, appender) = PgStore::new(files.clone(), LocalBus::new());
    tokio::spawn(appender.run());
    let (organization_store, appender) = PgStore::new(organizations.clone(), LocalBus::new());
    tokio::spawn(appender.run());
    let tenants: Vec<Uuid> = (0..ORGANIZATIONS).map(|_| Uuid::now_v7()).collect();
    for tenant in &tenants {
        let created: OrganizationEvent = OrganizationCreated { name: "Crash".into() }.into();
        let added: OrganizationEvent = MemberAdded { user_id: Uuid::now_v7(), role: Role::Owner }.into();
        let events = vec![NewEvent::encode(&created).unwrap(), NewEvent::encode(&added).unwrap()];
        append(&organization_store, "organization", *tenant, *tenant, 0, events).await;
    }

    let mut workers = Workers { site, running: BTreeMap::new() };
    for name in ["relay-a", "relay-b", "organization-relay", "file", "organization", "billing"] {
        workers.start(name);
    }
    let appended = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (store, tenants, appended) = (store.clone(), tenants.clone(), Arc::clone(&appended));
            tokio::spawn(async move {
                for number in (writer..FILES).step_by(8) {
                    let (id, tenant) = (Uuid::now_v7(), tenants[number % ORGANIZATIONS]);
                    let mut version = 0;
                    for events in life(tenant, number).chunks(2) {
                        append(&store, "file", id, tenant, version, encoded(events)).await;
                        version += events.len();
                        appended.fetch_add(events.len(), Ordering::SeqCst);
                    }
                }
            })
        })
        .collect();

    // Each happens when the bus has that many events, so that there is work on both sides of it.
    let steps: [(usize, &[&'static str]); 6] = [
        (1_500, &["relay-a"]),
        (4_000, &["organization"]),
        (7_000, &["relay-b", "billing"]),
        (10_000, &[]),
        (13_000, &["file", "relay-a", "organization-relay"]),
        (16_000, &["organization", "relay-b"]),
    ];
    for (at, names) in steps {
        within(Duration::from_secs(120), "the bus to go on", async || (published(&files).await >= at).then_some(()))
            .await;
        for name in names {
            workers.kill(name);
        }
        if let (Some(broker), true) = (&broker, names.is_empty()) {
            broker.kill();
            broker.restart();
        }
        for name in names {
            workers.start(name);
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(appended.load(Ordering::SeqCst), EVENTS);

    let expected = computed(&store).await;
    let caught_up = async || (models(&database).await == expected).then_some(());
    if tokio::time::timeout(Duration::from_secs(120), within(Duration::MAX, "", caught_up)).await.is_err() {
        assert_eq!(models(&database).await, expected, "every read model equals the one computed from the streams");
    }
    exactly_once(&database, &organization_store, &expected).await;
    drop(workers);
    drop((store, organization_store));
    files.close().await;
    organizations.close().await;
    database.drop().await;
}

async fn published(files: &PgPool) -> usize {
    let position: Option<i64> = sqlx::query_scalar("select max(position) from relays").fetch_one(files).await.unwrap();
    usize::try_from(position.unwrap_or(0)).unwrap()
}

/// What the read models should show.
#[derive(Debug, PartialEq)]
struct Models {
    /// By organization: bytes stored.
    storage: BTreeMap<Uuid, i64>,
    /// By organization: how many changes were metered, and what they sum to.
    metered: BTreeMap<Uuid, (i64, i64)>,
    /// By file: status, bytes, version.
    files: BTreeMap<Uuid, (String, i64, i64)>,
}

/// Folded from the streams, by this test alone.
async fn computed(store: &PgStore) -> Models {
    let mut models = Models { storage: BTreeMap::new(), metered: BTreeMap::new(), files: BTreeMap::new() };
    let mut events = store.stream_all(&[], Position::START);
    while let Some(envelope) = events.try_next().await.unwrap() {
        let organization = envelope.metadata.tenant.unwrap();
        let file = models.files.entry(envelope.aggregate_id).or_default();
        file.2 += 1;
        let delta = match envelope.decode::<FileEvent>().unwrap() {
            FileEvent::FilePartUploaded(part) => part.bytes,
            FileEvent::FileDeleted(deleted) => -deleted.bytes,
            _ => 0,
        };
        file.1 += delta;
        match &*envelope.event_name {
            "FileUploadStarted" => file.0 = "uploading".into(),
            "FileUploadCompleted" => file.0 = "completed".into(),
            "FileDeleted" => file.0 = "deleted".into(),
            _ => {}
        }
        if delta != 0 {
            *models.storage.entry(organization).or_default() += delta;
            let metered = models.metered.entry(organization).or_default();
            metered.0 += 1;
            metered.1 += delta;
        }
    }
    models
}

async fn models(database: &TestDatabase) -> Models {
    let pool = pool(database, "public").await;
    let rows = async |query: &'static str| sqlx::query(query).fetch_all(&pool).await.unwrap();
    let storage = rows("select id, storage_bytes from organization.organizations").await;
    let metered = rows(
        "select organization_id, count(*), sum(delta_bytes)::bigint from billing.storage_changes group by organization_id",
    )
    .await;
    let files = rows("select id, status, bytes, version from file.files").await;
    let models = Models {
        storage: storage.iter().map(|row| (row.get(0), row.get(1))).collect(),
        metered: metered.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect(),
        files: files.iter().map(|row| (row.get(0), (row.get(1), row.get(2), row.get(3)))).collect(),
    };
    pool.close().await;
    models
}

/// Nobody was parked, and the saga's commands sum up to what the files hold.
async fn exactly_once(database: &TestDatabase, organizations: &PgStore, expected: &Models) {
    let pool = pool(database, "public").await;
    for query in [
        "select count(*) from organization.dead_letters",
        "select count(*) from file.dead_letters",
        "select count(*) from billing.dead_letters",
    ] {
        let parked: i64 = sqlx::query_scalar(query).fetch_one(&pool).await.unwrap();
        assert_eq!(parked, 0, "{query}");
    }
    pool.close().await;
    let mut totals: BTreeMap<Uuid, i64> = BTreeMap::new();
    let mut versions: BTreeMap<Uuid, u64> = BTreeMap::new();
    let mut events = organizations.stream_all(&[], Position::START);
    while let Some(envelope) = events.try_next().await.unwrap() {
        let version = versions.entry(envelope.aggregate_id).or_default();
        assert_eq!(envelope.version.get(), *version + 1, "versions without holes");
        *version += 1;
        if let OrganizationEvent::StorageUsageChanged(changed) = envelope.decode().unwrap() {
            let total = totals.entry(envelope.aggregate_id).or_default();
            *total += changed.delta_bytes;
            assert_eq!(changed.total_bytes, *total);
        }
    }
    assert_eq!(totals, expected.storage);
}
