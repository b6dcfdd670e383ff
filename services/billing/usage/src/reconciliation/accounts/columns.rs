//! The rows that stand for accounts, plans and invoices, as the aggregates themselves say.
//!
//! The problem: what the projection writes event by event must be had in another way, or a fault of the projection would be in both. The
//! invariant: a row is made of the folded aggregate and nothing else, with all columns that its table has, so that a column that is added
//! and not told of here is a difference.

use std::collections::BTreeMap;

use epoch::{Aggregate, Timestamp};
use rating::{account::Account, invoice::InvoiceState, pricing::plan_aggregate::PlanCatalogue};
use serde_json::{Value, json};
use uuid::Uuid;

/// The columns of a row, without its id.
pub(super) type Columns = BTreeMap<String, Value>;

/// An aggregate for which a row stands.
pub(super) trait Listed: Aggregate {
    /// In which table.
    const TABLE: &'static str;
    /// The ids of rows after one.
    const IDS: &'static str;
    /// Rows by id, with all other columns.
    const ROWS: &'static str;

    /// The row after so many events, the first of which happened then; `None` when there is none.
    fn row(&self, version: u64, first: Timestamp) -> Option<Columns>;

    /// Whose it is.
    fn organization(&self, id: Uuid) -> Option<Uuid>;
}

fn columns<const N: usize>(columns: [(&str, Value); N]) -> Columns {
    columns.into_iter().map(|(column, value)| (column.to_owned(), value)).collect()
}

impl Listed for Account {
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

impl Listed for PlanCatalogue {
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

impl Listed for InvoiceState {
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
