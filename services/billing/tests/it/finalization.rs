//! Freezing months: over few connections, and at the same time.

use std::{sync::Arc, time::Duration};

use billing::{invoicing::open::Opening, settings};
use contracts::{
    file::{self, FileEvent, FilePartUploaded},
    job::{self, JobEvent, JobStarted, JobSucceeded},
};
use epoch::{CommandContext, Timestamp, local::LocalBus};
use epoch_postgres::PgStore;
use rating::calendar::month::Month;
use sqlx::postgres::{PgPool, PgPoolOptions};
use uuid::Uuid;

use crate::{
    read_models::Ledger,
    support::{at, id},
};

/// A gigabyte since September 2025, and a job of an hour in each month after it.
async fn used() -> Ledger {
    let mut ledger = Ledger::new().await;
    let organization_id = ledger.organization;
    let part = FilePartUploaded {
        organization_id,
        part_id: Uuid::now_v7(),
        offset: 0,
        bytes: 1_000_000_000,
        sha256: "0".repeat(64),
    };
    let september = at("2025-09-01T00:00:00Z").as_millis();
    let mut events = vec![ledger.event(file::AGGREGATE, id(1), september, september, &FileEvent::from(part))];
    for (job, month) in [(11, "2025-10"), (12, "2025-11")] {
        let start = at(&format!("{month}-05T08:00:00Z")).as_millis();
        let started: JobEvent =
            JobStarted { organization_id, machine_id: id(900), machine_type: "default".into(), user_id: None }.into();
        let ended: JobEvent = JobSucceeded { organization_id, exit_code: 0 }.into();
        events.push(ledger.event(job::AGGREGATE, id(job), start, start, &started));
        events.push(ledger.event(job::AGGREGATE, id(job), start + 3_600_000, start + 3_600_000, &ended));
    }
    ledger.deliver(&events).await;
    ledger
}

/// The ledger of invoices on these connections, in December 2025, with an account of the organization.
async fn december(pool: PgPool, organization: Uuid) -> billing::invoicing::ledger::Ledger {
    let (store, appender) = PgStore::new(pool, LocalBus::new());
    tokio::spawn(appender.run());
    let now: Timestamp = at("2025-12-02T00:00:00Z");
    let ledger = billing::invoicing::ledger::Ledger::new(
        store,
        settings::prices(|_| None).unwrap().plan(),
        Arc::new(move || now),
    );
    let opening = Opening { currency: "EUR".parse().unwrap(), time_zone: "UTC".into(), plan: None };
    ledger.open(organization, opening, &CommandContext::new()).await.unwrap();
    ledger
}

async fn frozen(ledger: &billing::invoicing::ledger::Ledger, organization: Uuid, month: &str) -> (i64, String) {
    let invoice = ledger.invoice_of(organization, month.parse().unwrap()).await.unwrap().1;
    let frozen = invoice.finalized().unwrap();
    (frozen.number, frozen.total.clone())
}

#[tokio::test]
async fn a_month_is_frozen_over_a_single_connection() {
    let used = used().await;
    let options = (*used.pool.connect_options()).clone();
    let narrow = PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(3));
    let narrow = narrow.connect_with(options).await.unwrap();
    let ledger = december(narrow.clone(), used.organization).await;
    for month in ["2025-10", "2025-11"] {
        let month: Month = month.parse().unwrap();
        ledger.finalize(used.organization, month, &CommandContext::new()).await.unwrap();
    }
    assert_eq!(frozen(&ledger, used.organization, "2025-10").await, (1, "0.25".to_owned()));
    assert_eq!(frozen(&ledger, used.organization, "2025-11").await, (2, "0.25".to_owned()));
    narrow.close().await;
    used.close().await;
}

#[tokio::test]
async fn two_months_that_are_frozen_at_once_are_frozen_one_after_the_other() {
    let used = used().await;
    let ledger = december(used.pool.clone(), used.organization).await;
    let context = CommandContext::new;
    let months: [Month; 3] = ["2025-09", "2025-10", "2025-11"].map(|month| month.parse().unwrap());
    let contexts = [context(), context(), context()];
    let finalize = |index: usize| ledger.finalize(used.organization, months[index], &contexts[index]);
    let (first, second, third) = tokio::join!(finalize(0), finalize(1), finalize(2));
    for executed in [first, second, third] {
        executed.unwrap();
    }
    let mut numbers = Vec::new();
    for month in ["2025-09", "2025-10", "2025-11"] {
        numbers.push(frozen(&ledger, used.organization, month).await.0);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(ledger.account(used.organization).await.unwrap().invoices().len(), 3);
    used.close().await;
}

/// A month of whole hours is read from sums alone, so its cost doesn't grow with its events.
#[tokio::test]
async fn an_invoice_reads_sums_and_no_events() {
    let used = used().await;
    let ledger = december(used.pool.clone(), used.organization).await;
    let october = async || ledger.draft(used.organization, "2025-10".parse().unwrap()).await.unwrap().1;
    let before = october().await;
    assert_eq!((before.lines.len(), before.days.len(), before.total.as_str()), (2, 31, "0.25"));
    for delete in ["delete from storage_changes", "delete from runs"] {
        sqlx::query(delete).execute(&used.pool).await.unwrap();
    }
    assert_eq!(october().await, before);
    used.close().await;
}
