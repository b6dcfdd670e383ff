//! What happens to a billing account: what an organization is charged by.
//!
//! The problem: what a customer was promised, from when on, must be known for every period, years later.
//!
//! The invariant: an organization has one account, of the same id. What is charged by begins at an instant and holds until
//! something else begins. Amounts are decimals of the account's currency.

use epoch::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::plan::Charge;

/// The aggregate's name.
pub const AGGREGATE: &str = "billing_account";

epoch::events! {
    /// What happens to a billing account.
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

/// An organization's account was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountOpened {
    /// What everything is charged in, as a code of ISO 4217.
    pub currency: String,
    /// The IANA time zone of its days and months.
    pub time_zone: String,
}

/// The account's days and months are those of another time zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountTimeZoneChanged {
    /// The IANA time zone.
    pub time_zone: String,
    /// The first month that is one of this zone, as `2026-03`.
    pub from_month: String,
}

/// The account is charged by a version of a plan, and stays with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanAssigned {
    /// The plan.
    pub plan_id: Uuid,
    /// Its version.
    pub plan_version: i32,
    /// From when on.
    pub from_at: Timestamp,
}

/// The account will be charged by another plan or version; it was given notice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanChangeScheduled {
    /// The plan.
    pub plan_id: Uuid,
    /// Its version.
    pub plan_version: i32,
    /// From when on.
    pub from_at: Timestamp,
    /// What the customer was told.
    pub notice: String,
}

/// The account has a price of its own for a meter, whatever its plan says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceOverridden {
    /// From when on.
    pub from_at: Timestamp,
    /// `storage` or `compute`.
    pub meter: String,
    /// What the meter costs; `None` to charge what the plan says again.
    pub charge: Option<Charge>,
}

/// A part of each subtotal is taken off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscountGranted {
    /// Hundredths; 0 for no discount.
    pub percent: String,
    /// Why.
    pub reason: String,
}

/// The account may use up an amount before it pays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreditGranted {
    /// How much.
    pub amount: String,
    /// Why.
    pub reason: String,
}

/// What the account has used since it was opened, up to the end of a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageMetered {
    /// The end of the day.
    pub through_at: Timestamp,
    /// What is stored then, in bytes.
    pub stored_bytes: i64,
    /// What was stored for how long, as an integer in digits.
    pub byte_milliseconds: String,
    /// How long jobs ran, as an integer in digits.
    pub run_milliseconds: String,
}

/// What the account wants to spend in a month at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetSet {
    /// How much; `None` for no budget.
    pub amount: Option<String>,
    /// At how many hundredths of it an alert is due, ascending.
    pub thresholds: Vec<i32>,
    /// Whether no new job is queued once the budget is used up.
    pub hard_stop: bool,
    /// Since when: of months that were over then it says nothing; `None` where that was not kept.
    pub set_at: Option<Timestamp>,
}

/// A threshold of the budget was reached; said once a month for each threshold and kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetExceeded {
    /// The month, as `2026-03`.
    pub month: String,
    /// `actual` for what has been used, `forecast` for what will have been at the month's end.
    pub kind: String,
    /// Which, in hundredths of the budget.
    pub threshold: i32,
    /// What was reached.
    pub amount: String,
    /// The budget.
    pub budget: String,
}

/// A period of the account was invoiced. What it was charged by up to then stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountInvoiced {
    /// The invoice.
    pub invoice_id: Uuid,
    /// The first instant after the period.
    pub end_at: Timestamp,
    /// What of the account's credit it used up.
    pub credit_used: String,
}

/// An invoice of the account doesn't count any more, and the credit it used up is there again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountInvoiceVoided {
    /// The invoice.
    pub invoice_id: Uuid,
    /// The credit.
    pub credit_returned: String,
}
