//! The rows of accounts, plans and invoices, derived from the aggregates.
//!
//! A fault of the projection must not occur on both sides, so a row is derived from the folded aggregate
//! alone, with all columns of its table. A column that is added to the table but not here is reported as a
//! difference.

use std::collections::BTreeMap;

use epoch::{Aggregate, Timestamp};
use rating::{account::Account, invoice::InvoiceState, pricing::plan_aggregate::PlanCatalogue};
use serde_json::{Value, json};
use uuid::Uuid;

/// The columns of a row except its id.
pub(super) type Columns = BTreeMap<String, Value>;

/// An aggregate with a row in a list.
pub(super) trait ListedAggregate: Aggregate {
    const TABLE: &'static str;
    /// The statement that lists ids after an id.
    const IDS: &'static str;
    /// The statement that reads rows by id, with all other columns.
    const ROWS: &'static str;

    /// Returns the row at a version, or `None` if there is none; `first` is the time of the first event.
    fn row(&self, version: u64, first: Timestamp) -> Option<Columns>;

    fn organization(&self, id: Uuid) -> Option<Uuid>;
}

fn columns<const N: usize>(columns: [(&str, Value); N]) -> Columns {
    columns.into_iter().map(|(column, value)| (column.to_owned(), value)).collect()
}

impl ListedAggregate for Account {
    const TABLE: &'static str = "billing_accounts";
    const IDS: &'static str =
        "select organization_id from billing_accounts where organization_id > $1 order by organization_id limit $2";
    const ROWS: &'static str = "select organization_id, to_jsonb(a) - 'organization_id' from billing_accounts a \
         where organization_id = any($1)";

    fn row(&self, version: u64, _: Timestamp) -> Option<Columns> {
        let currency = self.currency().ok()?;
        let has_budget = self.budget().is_some_and(|budget| budget.amount.is_some());
        Some(columns([
            ("currency", json!(currency.code())),
            ("has_budget", json!(has_budget)),
            ("version", json!(version)),
        ]))
    }

    fn organization(&self, id: Uuid) -> Option<Uuid> {
        Some(id)
    }
}

impl ListedAggregate for PlanCatalogue {
    const TABLE: &'static str = "plans";
    const IDS: &'static str = "select id from plans where id > $1 order by id limit $2";
    const ROWS: &'static str = "select id, to_jsonb(p) - 'id' from plans p where id = any($1)";

    fn row(&self, version: u64, first: Timestamp) -> Option<Columns> {
        let newest = self.versions().last()?;
        Some(columns([
            ("currency", json!(newest.currency)),
            ("name", json!(newest.name)),
            ("newest", json!(self.versions().len())),
            ("published_at", json!(first.as_millis())),
            ("retired", json!(self.retired().is_some())),
            ("version", json!(version)),
        ]))
    }

    fn organization(&self, _: Uuid) -> Option<Uuid> {
        None
    }
}

impl ListedAggregate for InvoiceState {
    const TABLE: &'static str = "invoices";
    const IDS: &'static str = "select id from invoices where id > $1 order by id limit $2";
    const ROWS: &'static str = "select id, to_jsonb(i) - 'id' from invoices i where id = any($1)";

    fn row(&self, version: u64, _: Timestamp) -> Option<Columns> {
        let (drafted, frozen) = (self.drafted()?, self.finalized());
        Some(columns([
            ("adjustments", json!(self.adjustments().len())),
            ("credit_note", json!(self.voided().and_then(|voided| voided.credit_note))),
            ("currency", json!(frozen.map(|frozen| &frozen.currency))),
            ("month", json!(drafted.month)),
            ("number", json!(frozen.map(|frozen| frozen.number))),
            ("organization_id", json!(drafted.organization_id)),
            ("status", json!(self.status())),
            ("total", json!(frozen.map(|frozen| &frozen.total))),
            ("version", json!(version)),
        ]))
    }

    fn organization(&self, _: Uuid) -> Option<Uuid> {
        self.drafted().map(|drafted| drafted.organization_id)
    }
}
