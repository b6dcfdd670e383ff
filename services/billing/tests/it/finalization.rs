//! Finalization of months: over one connection, concurrently, and from rollups alone.

use std::time::Duration;

use billing::invoicing::{ledger::Ledger, open::Opening};
use contracts::{
    file::{self, FileEvent},
    job::{self, JobEvent, JobSucceeded},
};
use epoch::CommandContext;
use rating::calendar::month::Month;
use sqlx::postgres::{PgPool, PgPoolOptions};
use uuid::Uuid;

use crate::{
    read_models::ReadModels,
    support::{HOUR, at, default_prices, id, invoice_ledger, job_started, part_uploaded},
};

/// Stores 1 GB from September 2025 on, and runs a job of one hour in October and in November.
async fn record_usage() -> ReadModels {
    let mut read_models = ReadModels::new().await;
    let organization_id = read_models.organization;
    let part = part_uploaded(organization_id, 0, 1_000_000_000);
    let september = at("2025-09-01T00:00:00Z").as_millis();
    let mut events = vec![read_models.event(file::AGGREGATE, id(1), september, september, &FileEvent::from(part))];
    for (job, month) in [(11, "2025-10"), (12, "2025-11")] {
        let start = at(&format!("{month}-05T08:00:00Z")).as_millis();
        let started: JobEvent = job_started(organization_id, None).into();
        let ended: JobEvent = JobSucceeded { organization_id, exit_code: 0 }.into();
        events.push(read_models.event(job::AGGREGATE, id(job), start, start, &started));
        events.push(read_models.event(job::AGGREGATE, id(job), start + HOUR, start + HOUR, &ended));
    }
    read_models.deliver(&events).await;
    read_models
}

/// Opens the invoice ledger over this pool in December 2025, with an account of the organization.
async fn open_ledger(pool: &PgPool, organization: Uuid) -> Ledger {
    let ledger = invoice_ledger(pool, default_prices(), || at("2025-12-02T00:00:00Z"));
    let opening = Opening { currency: "EUR".parse().unwrap(), time_zone: "UTC".into(), plan: None };
    ledger.open(organization, opening, &CommandContext::new()).await.unwrap();
    ledger
}

/// Returns the number and the total of the finalized invoice.
async fn number_and_total(ledger: &Ledger, organization: Uuid, month: &str) -> (i64, String) {
    let invoice = ledger.invoice_of(organization, month.parse().unwrap()).await.unwrap().1;
    let finalized = invoice.finalized().unwrap();
    (finalized.number, finalized.total.clone())
}

#[tokio::test]
async fn month_is_finalized_over_a_single_connection() {
    let read_models = record_usage().await;
    let options = (*read_models.pool.connect_options()).clone();
    let single = PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(3));
    let single = single.connect_with(options).await.unwrap();
    let ledger = open_ledger(&single, read_models.organization).await;
    for month in ["2025-10", "2025-11"] {
        let month: Month = month.parse().unwrap();
        ledger.finalize(read_models.organization, month, &CommandContext::new()).await.unwrap();
    }
    assert_eq!(number_and_total(&ledger, read_models.organization, "2025-10").await, (1, "0.25".to_owned()));
    assert_eq!(number_and_total(&ledger, read_models.organization, "2025-11").await, (2, "0.25".to_owned()));
    single.close().await;
    read_models.close().await;
}

#[tokio::test]
async fn concurrent_finalizations_get_consecutive_numbers() {
    let read_models = record_usage().await;
    let ledger = open_ledger(&read_models.pool, read_models.organization).await;
    let context = CommandContext::new;
    let months: [Month; 3] = ["2025-09", "2025-10", "2025-11"].map(|month| month.parse().unwrap());
    let contexts = [context(), context(), context()];
    let finalize = |index: usize| ledger.finalize(read_models.organization, months[index], &contexts[index]);
    let (first, second, third) = tokio::join!(finalize(0), finalize(1), finalize(2));
    for executed in [first, second, third] {
        executed.unwrap();
    }
    let mut numbers = Vec::new();
    for month in ["2025-09", "2025-10", "2025-11"] {
        numbers.push(number_and_total(&ledger, read_models.organization, month).await.0);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(ledger.account(read_models.organization).await.unwrap().invoices().len(), 3);
    read_models.close().await;
}

/// A month of whole hours is read from rollups alone, so the cost of an invoice does not grow with the number of events.
#[tokio::test]
async fn invoice_reads_rollups_and_no_events() {
    let read_models = record_usage().await;
    let ledger = open_ledger(&read_models.pool, read_models.organization).await;
    let october = async || ledger.draft(read_models.organization, "2025-10".parse().unwrap()).await.unwrap().1;
    let before = october().await;
    assert_eq!((before.lines.len(), before.days.len(), before.total.as_str()), (2, 31, "0.25"));
    for delete in ["delete from storage_changes", "delete from runs"] {
        sqlx::query(delete).execute(&read_models.pool).await.unwrap();
    }
    assert_eq!(october().await, before);
    read_models.close().await;
}
