//! The read models of accounts, plans and invoices: one row each, for lists.
//!
//! Invariant: a row equals the state of its aggregate at the version in the row. Decisions about money read
//! the aggregates, never these rows.

use async_trait::async_trait;
use contracts::{
    billing_account::{self, BillingAccountEvent},
    invoice::{self, InvoiceEvent},
    plan::{self, PlanEvent},
};
use epoch::{Batch, Envelope};
use epoch_postgres::{HandlerError, PgTx, Projection, version_number};

/// Projection into the tables `billing_accounts`, `plans` and `invoices`.
pub struct Accounts;

#[async_trait]
impl Projection for Accounts {
    const NAME: &'static str = "accounts";
    const AGGREGATES: &'static [&'static str] = &[billing_account::AGGREGATE, plan::AGGREGATE, invoice::AGGREGATE];
    const TABLES: &'static [&'static str] = &["billing_accounts", "plans", "invoices"];

    async fn apply(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        for event in events {
            match event.aggregate.as_ref() {
                billing_account::AGGREGATE => account(tx, event).await?,
                plan::AGGREGATE => plan(tx, event).await?,
                _ => invoice(tx, event).await?,
            }
        }
        Ok(())
    }
}

async fn account(tx: &mut PgTx, event: &Envelope) -> Result<(), HandlerError> {
    let version = version_number(event.version);
    let query = match event.decode::<BillingAccountEvent>()? {
        BillingAccountEvent::AccountOpened(opened) => {
            sqlx::query("insert into billing_accounts (organization_id, version, currency) values ($1, $2, $3)")
                .bind(event.aggregate_id)
                .bind(version)
                .bind(opened.currency)
        }
        BillingAccountEvent::BudgetSet(set) => {
            sqlx::query("update billing_accounts set version = $2, has_budget = $3 where organization_id = $1")
                .bind(event.aggregate_id)
                .bind(version)
                .bind(set.amount.is_some())
        }
        _ => sqlx::query("update billing_accounts set version = $2 where organization_id = $1")
            .bind(event.aggregate_id)
            .bind(version),
    };
    query.execute(tx.connection()).await?;
    Ok(())
}

async fn plan(tx: &mut PgTx, event: &Envelope) -> Result<(), HandlerError> {
    let version = version_number(event.version);
    let query = match event.decode::<PlanEvent>()? {
        PlanEvent::PlanPublished(published) => sqlx::query(
            "insert into plans (id, version, name, currency, newest, published_at) values ($1, $2, $3, $4, $5, $6) \
             on conflict (id) do update set version = excluded.version, name = excluded.name, \
             currency = excluded.currency, newest = excluded.newest",
        )
        .bind(event.aggregate_id)
        .bind(version)
        .bind(published.name)
        .bind(published.currency)
        .bind(published.plan_version)
        .bind(event.occurred_at.as_millis()),
        PlanEvent::PlanRetired(_) => sqlx::query("update plans set version = $2, retired = true where id = $1")
            .bind(event.aggregate_id)
            .bind(version),
    };
    query.execute(tx.connection()).await?;
    Ok(())
}

async fn invoice(tx: &mut PgTx, event: &Envelope) -> Result<(), HandlerError> {
    let version = version_number(event.version);
    let query = match event.decode::<InvoiceEvent>()? {
        InvoiceEvent::InvoiceDrafted(drafted) => sqlx::query(
            "insert into invoices (id, version, organization_id, month, status) values ($1, $2, $3, $4, 'draft')",
        )
        .bind(event.aggregate_id)
        .bind(version)
        .bind(drafted.organization_id)
        .bind(drafted.month),
        InvoiceEvent::InvoiceFinalized(finalized) => sqlx::query(
            "update invoices set version = $2, status = 'finalized', number = $3, currency = $4, total = $5 where id = $1",
        )
        .bind(event.aggregate_id)
        .bind(version)
        .bind(finalized.number)
        .bind(finalized.currency)
        .bind(finalized.total),
        InvoiceEvent::InvoiceVoided(voided) => {
            sqlx::query("update invoices set version = $2, status = 'void', credit_note = $3 where id = $1")
                .bind(event.aggregate_id)
                .bind(version)
                .bind(voided.credit_note)
        }
        InvoiceEvent::AdjustmentBooked(_) => {
            sqlx::query("update invoices set version = $2, adjustments = adjustments + 1 where id = $1")
                .bind(event.aggregate_id)
                .bind(version)
        }
        InvoiceEvent::AdjustmentReleased(_) => {
            sqlx::query("update invoices set version = $2, adjustments = adjustments - 1 where id = $1")
                .bind(event.aggregate_id)
                .bind(version)
        }
    };
    query.execute(tx.connection()).await?;
    Ok(())
}
