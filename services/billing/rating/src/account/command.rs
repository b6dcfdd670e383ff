//! What an account can be asked to do, and why it says no.

use contracts::billing_account::{BillingAccountEvent, UsageMetered};
use epoch::Timestamp;
use uuid::Uuid;

use crate::{
    account::pin::Pin,
    calendar::month::Month,
    money::{amount::Amount, currency::Currency, decimal::Decimal},
    pricing::{components::ChargeDefinition, meter::Meter},
    validation::Refused,
};

/// The events of a command, or the reason why it is refused.
pub(super) type Decision = Result<Vec<BillingAccountEvent>, AccountError>;

/// What an account can be asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountCommand {
    /// Come to be.
    Open {
        /// What it is charged by from the beginning.
        pin: Pin,
        /// The plan's currency, in which everything is charged.
        currency: Currency,
        /// The IANA time zone of its days and months.
        time_zone: String,
    },
    /// Take another time zone.
    ChangeTimeZone {
        /// The IANA time zone.
        time_zone: String,
        /// The first month that is one of this zone.
        from: Month,
        /// The month that is under way, which keeps its zone.
        current: Month,
    },
    /// Be charged by a version of a plan.
    AssignPlan {
        /// Which.
        pin: Pin,
        /// The plan's currency.
        currency: Currency,
        /// From when on.
        from: Timestamp,
        /// Now.
        now: Timestamp,
        /// What the customer is told of a change that lies in the future, and of no other.
        notice: Option<String>,
    },
    /// Have a price of its own.
    OverridePrice {
        /// For what.
        meter: Meter,
        /// The price; `None` for what the plan says.
        charge: Option<ChargeDefinition>,
        /// From when on.
        from: Timestamp,
    },
    /// Have a part of each subtotal taken off.
    GrantDiscount {
        /// Hundredths.
        percent: Decimal,
        /// Why.
        reason: String,
    },
    /// Use up an amount before it pays.
    GrantCredit {
        /// How much.
        amount: Decimal,
        /// Why.
        reason: String,
    },
    /// Remember what was used up to the end of a day.
    RecordUsage(UsageMetered),
    /// Spend no more in a month.
    SetBudget {
        /// How much; `None` for no budget.
        amount: Option<Decimal>,
        /// At how many hundredths of it an alert is due.
        thresholds: Vec<i32>,
        /// Whether no new job is queued once it is used up.
        hard_stop: bool,
        /// Since when.
        now: Timestamp,
    },
    /// Remember that a period was invoiced.
    Invoiced {
        /// The invoice.
        invoice: Uuid,
        /// The first instant after the period.
        end: Timestamp,
        /// What of the credit it used up.
        credit_used: Amount,
    },
    /// Forget an invoice, and take back what credit it used up.
    InvoiceVoided {
        /// The invoice.
        invoice: Uuid,
    },
    /// Say which thresholds are reached.
    CheckBudget {
        /// The month.
        month: Month,
        /// What has been used.
        actual: Amount,
        /// What will have been used at the month's end, as long as it is not over.
        forecast: Option<Amount>,
    },
}

/// Why an account says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// There is no such account.
    #[error("the account does not exist")]
    NotFound,
    /// There is one already.
    #[error("the account exists already")]
    AlreadyExists,
    /// The plan is in another currency.
    #[error("the account is in {account}, and the plan is in {plan}")]
    OtherCurrency {
        /// The account's.
        account: String,
        /// The plan's.
        plan: &'static str,
    },
    /// What has been invoiced stays as it is.
    #[error("everything up to {invoiced_until} has been invoiced, and {from} lies before it")]
    Invoiced {
        /// From when on.
        from: Timestamp,
        /// Until when.
        invoiced_until: Timestamp,
    },
    /// Something can't be used.
    #[error(transparent)]
    Refused(#[from] Refused),
}
