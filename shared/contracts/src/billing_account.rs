//! Events of billing accounts: the terms by which an organization is charged.
//!
//! Each organization has one account with the same id. A term takes effect at an instant and applies until a later one replaces it, so
//! the terms of every past period remain known. Amounts are decimals of the account's currency.

use epoch::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::plan::Charge;

/// The name of the aggregate.
pub const AGGREGATE: &str = "billing_account";

epoch::events! {
    /// An event of a billing account.
    pub enum BillingAccountEvent {
        AccountOpened = [schema!("billing_account/AccountOpened")],
        AccountTimeZoneChanged = [schema!("billing_account/AccountTimeZoneChanged")],
        PlanAssigned = [schema!("billing_account/PlanAssigned")],
        PlanChangeScheduled = [schema!("billing_account/PlanChangeScheduled")],
        PriceOverridden = [schema!("billing_account/PriceOverridden")],
        DiscountGranted = [schema!("billing_account/DiscountGranted")],
        CreditGranted = [schema!("billing_account/CreditGranted")],
        UsageMetered = [schema!("billing_account/UsageMetered")],
        BudgetSet = [schema!("billing_account/BudgetSet"), schema!("billing_account/BudgetSet.1")],
        BudgetExceeded = [schema!("billing_account/BudgetExceeded")],
        AccountInvoiced = [schema!("billing_account/AccountInvoiced")],
        AccountInvoiceVoided = [schema!("billing_account/AccountInvoiceVoided")],
    }
}

/// An organization's billing account was opened. Its id is the organization's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountOpened {
    /// Currency of the account, as an ISO 4217 code.
    pub currency: String,
    /// IANA time zone of the account's days and months.
    pub time_zone: String,
}

/// The account's time zone changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountTimeZoneChanged {
    /// New IANA time zone.
    pub time_zone: String,
    /// First month in the new time zone, such as `2026-03`.
    pub from_month: String,
}

/// The account was pinned to a version of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanAssigned {
    pub plan_id: Uuid,
    pub plan_version: i32,
    /// Instant at which the term takes effect.
    pub from_at: Timestamp,
}

/// A change to another plan or plan version was scheduled, with notice to the customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanChangeScheduled {
    pub plan_id: Uuid,
    pub plan_version: i32,
    /// Instant at which the term takes effect.
    pub from_at: Timestamp,
    pub notice: String,
}

/// A price override for a meter was set or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceOverridden {
    /// Instant at which the term takes effect.
    pub from_at: Timestamp,
    /// Key of the meter: `storage` or `compute`.
    pub meter: String,
    /// Price of the meter; `None` restores the plan's price.
    pub charge: Option<Charge>,
}

/// A discount on each subtotal was granted or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscountGranted {
    /// Discount in percent, as a decimal; 0 removes the discount.
    pub percent: String,
    pub reason: String,
}

/// The account received a credit grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreditGranted {
    /// Granted amount, as a decimal of the account's currency.
    pub amount: String,
    pub reason: String,
}

/// Cumulative usage of the account from its opening to the end of a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageMetered {
    pub through_at: Timestamp,
    /// Stored bytes at the end of the day.
    pub stored_bytes: i64,
    /// Storage in byte-milliseconds, as an integer in decimal digits.
    pub byte_milliseconds: String,
    /// Run time of jobs in milliseconds, as an integer in decimal digits.
    pub run_milliseconds: String,
}

/// A monthly budget was set or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetSet {
    /// Monthly budget, as a decimal of the account's currency; `None` removes the budget.
    pub amount: Option<String>,
    /// Alert thresholds in percent of the budget, ascending.
    pub thresholds: Vec<i32>,
    /// Whether no new jobs are queued once the budget is used up.
    pub hard_stop: bool,
    /// Instant from which the budget applies; it does not apply to months that were over by then. `None` in events from before this
    /// field.
    pub set_at: Option<Timestamp>,
}

/// A budget threshold was reached. Recorded once a month for each threshold and kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetExceeded {
    /// Invoice month, such as `2026-03`.
    pub month: String,
    /// `actual` for the cost so far, `forecast` for the expected cost at the end of the month.
    pub kind: String,
    /// Threshold that was reached, in percent of the budget.
    pub threshold: i32,
    /// Cost that reached the threshold, as a decimal.
    pub amount: String,
    /// Monthly budget, as a decimal.
    pub budget: String,
}

/// A period of the account was invoiced. Terms before the end of the period cannot change any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountInvoiced {
    pub invoice_id: Uuid,
    /// First instant after the period.
    pub end_at: Timestamp,
    /// Credit applied to the invoice, as a decimal.
    pub credit_used: String,
}

/// An invoice of the account was voided and its applied credit was returned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountInvoiceVoided {
    pub invoice_id: Uuid,
    /// Returned credit, as a decimal.
    pub credit_returned: String,
}
