//! Kills relays, projection workers and the broker with `kill -9` while 20,000 events are in flight. Afterwards every read
//! model must equal the state computed from the event streams.

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
    CommandContext, FastPath, Position, Version,
    store::{Append, AppendOutcome, Appender, NewEvent, Streamer},
};
use epoch_postgres::{PgStore, connect, testkit::TestDatabase};
use futures::TryStreamExt;
use sqlx::{
    FromRow, PgPool, Row,
    postgres::{PgPoolOptions, PgRow},
};
use uuid::Uuid;

use crate::{
    broker::Broker,
    installation::{Environment, Process, test_kafka, within},
};

const FILES: usize = 400;
const PARTS: usize = 48;
/// Per file: one start, its parts, one completion; one deletion for every second file.
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
    assert!(matches!(appended, AppendOutcome::Committed { .. }), "{appended:?}");
}

fn encoded(events: &[FileEvent]) -> Vec<NewEvent> {
    events.iter().map(|event| NewEvent::encode(event).unwrap()).collect()
}

/// Returns all events of one file.
fn file_events(organization_id: Uuid, number: usize) -> Vec<FileEvent> {
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

/// Processes that the test kills and restarts.
struct Workers {
    // Declared before the environment: processes must end before the directory with their logs is removed.
    running: BTreeMap<&'static str, Process>,
    environment: Environment,
}

impl Workers {
    /// Starts a worker. `relay-a` and `relay-b` are both relays of the file service: one leads, one stands by.
    fn start(&mut self, name: &'static str) {
        let (binary, role) = match name {
            "relay-a" | "relay-b" => ("file", "relay"),
            "organization-relay" => ("organization", "relay"),
            other => (other, "project"),
        };
        let process = self.environment.start(binary, &[role], &[]);
        self.running.insert(name, process);
    }

    fn kill(&mut self, name: &'static str) {
        self.running.remove(name).unwrap().kill();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn read_models_equal_streams_after_kills() {
    let database = TestDatabase::create().await;
    let directory = tempfile::TempDir::new().unwrap();
    // Without Kafka there is no broker to kill; the workers are killed in any case.
    let broker = test_kafka().map(|_| Broker::start(directory.path().join("broker")));
    let environment = Environment::new(database.url(), broker.as_ref().map(|broker| broker.address.clone()));
    for service in ["organization", "file", "billing"] {
        environment.run(service, &["migrate"]);
    }
    let (files, organizations) = (pool(&database, "file").await, pool(&database, "organization").await);
    let (store, appender) = PgStore::new(files.clone(), FastPath::new());
    tokio::spawn(appender.run());
    let (organization_store, appender) = PgStore::new(organizations.clone(), FastPath::new());
    tokio::spawn(appender.run());
    let tenants: Vec<Uuid> = (0..ORGANIZATIONS).map(|_| Uuid::now_v7()).collect();
    for tenant in &tenants {
        let created: OrganizationEvent = OrganizationCreated { name: "Crash".into() }.into();
        let added: OrganizationEvent = MemberAdded { user_id: Uuid::now_v7(), role: Role::Owner }.into();
        let events = vec![NewEvent::encode(&created).unwrap(), NewEvent::encode(&added).unwrap()];
        append(&organization_store, "organization", *tenant, *tenant, 0, events).await;
    }

    let mut workers = Workers { environment, running: BTreeMap::new() };
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
                    for events in file_events(tenant, number).chunks(2) {
                        append(&store, "file", id, tenant, version, encoded(events)).await;
                        version += events.len();
                        appended.fetch_add(events.len(), Ordering::SeqCst);
                    }
                }
            })
        })
        .collect();

    // Each kill happens when the bus has this many events, so that both sides of it still have work.
    let steps: [(usize, &[&'static str]); 6] = [
        (1_500, &["relay-a"]),
        (4_000, &["organization"]),
        (7_000, &["relay-b", "billing"]),
        (10_000, &[]),
        (13_000, &["file", "relay-a", "organization-relay"]),
        (16_000, &["organization", "relay-b"]),
    ];
    for (at, names) in steps {
        within(Duration::from_secs(120), "the relay to publish more events", async || {
            (published(&files).await >= at).then_some(())
        })
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

    let expected = expected_state(&store).await;
    let caught_up = async || (read_models(&database).await == expected).then_some(());
    if tokio::time::timeout(Duration::from_secs(120), within(Duration::MAX, "", caught_up)).await.is_err() {
        assert_eq!(
            read_models(&database).await,
            expected,
            "every read model equals the state computed from the streams"
        );
    }
    assert_exactly_once(&database, &organization_store, &expected).await;
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

#[derive(Debug, Default, PartialEq, FromRow)]
struct StorageChanges {
    count: i64,
    bytes: i64,
}

#[derive(Debug, Default, PartialEq, FromRow)]
struct FileState {
    status: String,
    bytes: i64,
    version: i64,
}

/// State of the read models.
#[derive(Debug, Default, PartialEq)]
struct ReadModels {
    /// Stored bytes of each organization.
    storage: BTreeMap<Uuid, i64>,
    /// Metered storage changes of each organization.
    storage_changes: BTreeMap<Uuid, StorageChanges>,
    files: BTreeMap<Uuid, FileState>,
}

/// Folds the event streams, independently of the code under test.
async fn expected_state(store: &PgStore) -> ReadModels {
    let mut models = ReadModels::default();
    let mut events = store.stream_all(&[], Position::START);
    while let Some(envelope) = events.try_next().await.unwrap() {
        let organization = envelope.metadata.tenant.unwrap();
        let file = models.files.entry(envelope.aggregate_id).or_default();
        file.version += 1;
        let delta = match envelope.decode::<FileEvent>().unwrap() {
            FileEvent::FilePartUploaded(part) => part.bytes,
            FileEvent::FileDeleted(deleted) => -deleted.bytes,
            _ => 0,
        };
        file.bytes += delta;
        match &*envelope.event_name {
            "FileUploadStarted" => file.status = "uploading".into(),
            "FileUploadCompleted" => file.status = "completed".into(),
            "FileDeleted" => file.status = "deleted".into(),
            _ => {}
        }
        if delta != 0 {
            *models.storage.entry(organization).or_default() += delta;
            let changes = models.storage_changes.entry(organization).or_default();
            changes.count += 1;
            changes.bytes += delta;
        }
    }
    models
}

async fn read_models(database: &TestDatabase) -> ReadModels {
    let pool = pool(database, "public").await;
    let rows = async |query: &'static str| sqlx::query(query).fetch_all(&pool).await.unwrap();
    let storage = rows("select id, storage_bytes from organization.organizations").await;
    let storage_changes = rows(
        "select organization_id as id, count(*) as count, sum(delta_bytes)::bigint as bytes \
         from billing.storage_changes group by organization_id",
    )
    .await;
    let files = rows("select id, status, bytes, version from file.files").await;
    let models = ReadModels {
        storage: storage.iter().map(|row| (row.get("id"), row.get("storage_bytes"))).collect(),
        storage_changes: by_id(&storage_changes),
        files: by_id(&files),
    };
    pool.close().await;
    models
}

fn by_id<T: for<'r> FromRow<'r, PgRow>>(rows: &[PgRow]) -> BTreeMap<Uuid, T> {
    rows.iter().map(|row| (row.get("id"), T::from_row(row).unwrap())).collect()
}

/// Checks that no aggregate is parked, and that the saga's commands sum to the stored bytes of the files.
async fn assert_exactly_once(database: &TestDatabase, organizations: &PgStore, expected: &ReadModels) {
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
        assert_eq!(envelope.version.get(), *version + 1, "gapless versions");
        *version += 1;
        if let OrganizationEvent::StorageUsageChanged(changed) = envelope.decode().unwrap() {
            let total = totals.entry(envelope.aggregate_id).or_default();
            *total += changed.delta_bytes;
            assert_eq!(changed.total_bytes, *total);
        }
    }
    assert_eq!(totals, expected.storage);
}
