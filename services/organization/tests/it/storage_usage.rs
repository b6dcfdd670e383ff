//! The handler `storage_usage`: an organization's total is the exact sum of its files' bytes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use contracts::{
    file::{self, FileDeleted, FileEvent, FilePartUploaded, FileUploadAborted, FileUploadCompleted, FileUploadStarted},
    organization::{self as contract, OrganizationEvent},
};
use epoch::{
    CommandContext, Envelope, Timestamp, Version,
    envelope::StreamKey,
    gate::DeliverySource,
    handler::Subscription,
    memory::MemoryStore,
    retry::RetryPolicy,
    store::{Append, AppendOutcome, Appender, NewEvent, Streamer},
};
use epoch_postgres::{PgSubscription, dead_letters};
use futures::TryStreamExt;
use organization::sagas::StorageUsage;
use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use crate::support::{Acme, Events, Process, pool, tables};

fn started(organization_id: Uuid) -> FileEvent {
    let (name, content_type) = ("data.bin".to_owned(), "application/octet-stream".to_owned());
    FileUploadStarted { organization_id, name, content_type, declared_bytes: 9, produced_by_job: None }.into()
}

fn part(organization_id: Uuid, bytes: i64) -> FileEvent {
    FilePartUploaded { organization_id, part_id: Uuid::now_v7(), offset: 0, bytes, sha256: "0".repeat(64) }.into()
}

fn completed(organization_id: Uuid, bytes: i64) -> FileEvent {
    FileUploadCompleted { organization_id, bytes }.into()
}

fn deleted(organization_id: Uuid, bytes: i64) -> FileEvent {
    FileDeleted { organization_id, bytes }.into()
}

fn aborted(organization_id: Uuid, bytes: i64) -> FileEvent {
    FileUploadAborted { organization_id, bytes }.into()
}

/// Returns the number of bytes that an event adds to the total.
fn bytes(event: &FileEvent) -> i64 {
    match event {
        FileEvent::FilePartUploaded(part) => part.bytes,
        FileEvent::FileUploadAborted(aborted) => -aborted.bytes,
        FileEvent::FileDeleted(deleted) => -deleted.bytes,
        FileEvent::FileUploadStarted(_) | FileEvent::FileUploadCompleted(_) => 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redelivered_file_events_count_once() {
    let acme = Acme::start().await;
    let at = Timestamp::from_millis(1_761_442_200_500);
    let file = Uuid::now_v7();
    let first = [started(acme.id), part(acme.id, 40), part(acme.id, 60), completed(acme.id, 100)];
    acme.service.publish(file::AGGREGATE, file, acme.id, at, &first).await;
    acme.service.republish().await;
    let abandoned = [started(acme.id), part(acme.id, 7), aborted(acme.id, 7)];
    acme.service.publish(file::AGGREGATE, Uuid::now_v7(), acme.id, at, &abandoned).await;
    acme.service.republish().await;
    acme.service.publish(file::AGGREGATE, file, acme.id, at, &[deleted(acme.id, 100)]).await;
    acme.service.publish(file::AGGREGATE, Uuid::now_v7(), acme.id, at, &[part(acme.id, 5)]).await;
    acme.service.republish().await;
    // The handler has applied this file, so all earlier deliveries have arrived too.
    let done = Uuid::now_v7();
    acme.service.publish(file::AGGREGATE, done, acme.id, at, &[part(acme.id, 1_000)]).await;
    let progress = epoch_postgres::Progress::new(acme.service.pool.clone());
    let stream = StreamKey { aggregate: file::AGGREGATE.into(), id: done };
    let limit = Duration::from_secs(20);
    progress.wait_for(StorageUsage::NAME, &stream, Version::new(1), limit).await.unwrap();

    let process = acme.process().await;
    assert_eq!(process.total(acme.id).await, 1_005);
    let version = process.organizations.load(acme.id).await.unwrap().version.get();
    assert_eq!(acme.read(version).await["storage_bytes"], json!(1_005));
    let occurred: Vec<i64> =
        sqlx::query_scalar("select distinct occurred_at from events where event_name = 'StorageUsageChanged'")
            .fetch_all(&acme.service.pool)
            .await
            .unwrap();
    assert_eq!(occurred, [at.as_millis()], "the change has the time of the file events");
    acme.service.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_sends_one_command_per_changed_organization() {
    let (database, pool) = tables().await;
    let process = Process::on(&pool);
    let ids = [Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7()];
    for id in ids {
        process.create(id).await;
    }
    let mut batch = Vec::new();
    let file_store = MemoryStore::new();
    for _ in 0..4 {
        batch.extend(append(&file_store, Uuid::now_v7(), &[started(ids[0]), part(ids[0], 3), part(ids[0], 4)]).await);
        batch
            .extend(append(&file_store, Uuid::now_v7(), &[started(ids[1]), part(ids[1], 5), deleted(ids[1], 7)]).await);
        batch.extend(append(&file_store, Uuid::now_v7(), &[part(ids[2], 9), aborted(ids[2], 9)]).await);
    }
    let gate = process.subscription(StorageUsage::new(process.organizations.clone()));
    assert_eq!(gate.deliver(&batch, DeliverySource::Bus).await.unwrap().applied, batch.len());
    let changes: Vec<(Uuid, i64)> = sqlx::query_as(
        "select aggregate_id, count(*) from events where event_name = 'StorageUsageChanged' group by 1 order by 1",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(changes, [(ids[0], 1), (ids[1], 1)]);
    assert_eq!(process.total(ids[0]).await, 28);
    assert_eq!(process.total(ids[1]).await, -8, "a negative total is not clamped");
    assert_eq!(process.total(ids[2]).await, 0);
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partly_rejected_batch_counts_nothing_twice() {
    let (database, pool) = tables().await;
    let process = Process::on(&pool);
    // Commands follow the order of ids: one organization before the unknown one, and one after it.
    let [first, unknown, last] = [1, 2, 3].map(Uuid::from_u128);
    process.create(first).await;
    process.create(last).await;
    let file_store = MemoryStore::new();
    let mut batch = Vec::new();
    for organization in [unknown, last, first] {
        batch.extend(append(&file_store, Uuid::now_v7(), &[started(organization), part(organization, 5)]).await);
        batch.extend(append(&file_store, Uuid::now_v7(), &[started(organization), part(organization, 6)]).await);
    }
    let quick = RetryPolicy { attempts: 3, first: Duration::from_millis(1), limit: Duration::from_millis(2) };
    let gate = process.subscription(StorageUsage::new(process.organizations.clone())).with_retry(quick);
    let local = gate.deliver(&batch, DeliverySource::FastPath).await.unwrap();
    assert_eq!(local.gap, batch.len(), "the fast path leaves the batch to the bus");
    let from_bus = gate.deliver(&batch, DeliverySource::Bus).await.unwrap();
    assert_eq!((from_bus.applied, from_bus.queued), (10, 2));
    for (organization, total) in [(first, 11), (unknown, 0), (last, 11)] {
        assert_eq!(process.total(organization).await, total);
    }
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_unknown_organization_are_parked_alone() {
    let acme = Acme::start().await;
    let (unknown, waiting, at) = (Uuid::now_v7(), Uuid::now_v7(), Timestamp::now());
    let early = [started(unknown), part(unknown, 11), part(unknown, 12)];
    acme.service.publish(file::AGGREGATE, waiting, unknown, at, &early).await;
    acme.service.publish(file::AGGREGATE, Uuid::now_v7(), acme.id, at, &[part(acme.id, 5)]).await;

    let process = acme.process().await;
    let gate = process.subscription(StorageUsage::new(process.organizations.clone()));
    let parked = || async {
        let letters = dead_letters::list(&gate, 10).await.unwrap();
        (letters.len() == 2).then_some(letters)
    };
    let letters = acme.service.eventually(parked).await;
    let parked_events: Vec<_> = letters.iter().map(|letter| (letter.stream.id, letter.version.get())).collect();
    assert_eq!(parked_events, [(waiting, 2), (waiting, 3)]);
    assert_eq!(letters[0].error.as_deref(), Some("the organization does not exist"));
    let counted = || async { (process.total(acme.id).await == 5).then_some(()) };
    acme.service.eventually(counted).await;
    assert_eq!(process.total(unknown).await, 0, "an unknown organization has no total");

    let stream = StreamKey { aggregate: file::AGGREGATE.into(), id: waiting };
    assert!(dead_letters::retry(&gate, &stream).await.is_err(), "the organization is still unknown");
    process.create(unknown).await;
    assert_eq!(dead_letters::retry(&gate, &stream).await.unwrap(), 2);
    assert_eq!(process.total(unknown).await, 23, "no bytes were lost");
    acme.service.publish(file::AGGREGATE, waiting, unknown, at, &[deleted(unknown, 23)]).await;
    acme.service.republish().await;
    let freed = || async { (process.total(unknown).await == 0).then_some(()) };
    acme.service.eventually(freed).await;
    acme.service.close().await;
}

/// Returns events of a file, as the file service commits them.
async fn append(file_store: &MemoryStore, file: Uuid, events: &[FileEvent]) -> Events {
    let append = Append {
        aggregate: file::AGGREGATE,
        aggregate_id: file,
        expected: Version::ZERO,
        previous: None,
        events: events.iter().map(|event| NewEvent::encode(event).unwrap()).collect(),
        context: CommandContext::new(),
    };
    let Ok(AppendOutcome::Committed { events, .. }) = file_store.append(append).await else { panic!("not appended") };
    events
}

/// One file: its organization, its parts, and its end.
type History = (usize, Vec<i64>, u8);

/// A slice of the log: start, length, delivery source, and the second process if `true`.
type Delivery = (usize, usize, u8, bool);

const ORGANIZATIONS: usize = 3;

fn events(organization: Uuid, parts: &[i64], end: u8) -> Vec<FileEvent> {
    let total = parts.iter().sum();
    let mut events = vec![started(organization)];
    events.extend(parts.iter().map(|bytes| part(organization, *bytes)));
    match end {
        0 => {}
        1 => events.push(completed(organization, total)),
        2 => events.push(aborted(organization, total)),
        // Frees more bytes than the file stored. The total still follows the events.
        3 => events.push(deleted(organization, total + 1)),
        _ => events.extend([completed(organization, total), deleted(organization, total)]),
    }
    events
}

/// Interleaves the events of concurrently written files.
fn interleaved(files: Vec<Events>) -> Events {
    let mut files: Vec<_> = files.into_iter().map(Vec::into_iter).collect();
    let mut log = Vec::new();
    loop {
        let before = log.len();
        for file in &mut files {
            log.extend(file.next());
        }
        if log.len() == before {
            return log;
        }
    }
}

async fn deliver_in_pieces(processes: &[Process; 2], log: &[Arc<Envelope>], deliveries: &[Delivery]) {
    let ways = [DeliverySource::FastPath, DeliverySource::Bus, DeliverySource::Replay];
    let gate = |process: &Process| -> PgSubscription {
        process.subscription(StorageUsage::new(process.organizations.clone()))
    };
    for at_once in deliveries.chunks(5) {
        let arrivals = at_once.iter().map(|&(start, length, way, process)| {
            let start = start % log.len();
            let piece = log[start..(start + length).min(log.len())].to_vec();
            let gate = gate(&processes[usize::from(process)]);
            tokio::spawn(async move { gate.deliver(&piece, ways[usize::from(way)]).await })
        });
        for arrival in futures::future::join_all(arrivals.collect::<Vec<_>>()).await {
            arrival.unwrap().unwrap();
        }
    }
    // Finally the bus delivers the whole log to both processes at once.
    let [one, other] = processes.each_ref().map(gate);
    let (one, other) = futures::join!(one.deliver(log, DeliverySource::Bus), other.deliver(log, DeliverySource::Bus));
    one.unwrap();
    other.unwrap();
}

/// Returns the sum of all changes, and whether each total is the sum of the changes up to it.
async fn changes(process: &Process, organization: Uuid) -> (i64, bool) {
    let (mut sum, mut totals_follow) = (0, true);
    let mut stream = process.store.stream(contract::AGGREGATE, organization, Version::ZERO);
    while let Some(event) = stream.try_next().await.unwrap() {
        if let OrganizationEvent::StorageUsageChanged(changed) = event.decode().unwrap() {
            sum += changed.delta_bytes;
            totals_follow &= changed.total_bytes == sum && changed.delta_bytes != 0;
        }
    }
    (sum, totals_follow)
}

async fn check_totals(histories: Vec<History>, deliveries: Vec<Delivery>) {
    let (database, own) = tables().await;
    let processes = [Process::on(&own), Process::on(&pool(&database).await)];
    let ids: Vec<Uuid> = (0..ORGANIZATIONS).map(|_| Uuid::now_v7()).collect();
    for id in &ids {
        processes[0].create(*id).await;
    }
    let file_store = MemoryStore::new();
    let (mut files, mut expected) = (Vec::new(), BTreeMap::new());
    for (organization, parts, end) in histories {
        let events = events(ids[organization], &parts, end);
        *expected.entry(ids[organization]).or_insert(0) += events.iter().map(bytes).sum::<i64>();
        files.push(append(&file_store, Uuid::now_v7(), &events).await);
    }
    deliver_in_pieces(&processes, &interleaved(files), &deliveries).await;
    for id in ids {
        let total = expected.get(&id).copied().unwrap_or_default();
        assert_eq!(processes[0].total(id).await, total);
        assert_eq!(changes(&processes[0], id).await, (total, true));
    }
    database.drop().await;
}

#[test]
fn total_equals_sum_of_events_in_any_delivery() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let history = (0..ORGANIZATIONS, prop::collection::vec(0..1_000_i64, 0..5), 0..5_u8);
    let histories = prop::collection::vec(history, 1..12);
    let delivery = (0..60_usize, 1..20_usize, 0..3_u8, any::<bool>());
    let deliveries = prop::collection::vec(delivery, 0..30);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(16));
    let result = runner.run(&(histories, deliveries), |(histories, deliveries)| {
        runtime.block_on(check_totals(histories, deliveries));
        Ok(())
    });
    result.unwrap();
}
