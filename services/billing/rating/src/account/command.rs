//! Commands and errors of the billing account.

use contracts::billing_account::{BillingAccountEvent, UsageMetered};
use epoch::Timestamp;
use uuid::Uuid;

use crate::{
    account::pin::Pin,
    calendar::month::Month,
    money::{amount::Amount, currency::Currency, decimal::Decimal},
    pricing::{components::ChargeDefinition, meter::Meter},
    validation::InvalidInput,
};

/// The events of a command, or the reason for its rejection.
pub(super) type Decision = Result<Vec<BillingAccountEvent>, AccountError>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountCommand {
    /// Opens the account.
    Open {
        /// The plan version that applies from the beginning.
        pin: Pin,
        /// The currency of the plan, in which all amounts are charged.
        currency: Currency,
        /// The IANA time zone of days and months.
        time_zone: String,
    },
    /// Changes the time zone.
    ChangeTimeZone {
        /// The name of the IANA time zone.
        time_zone: String,
        /// The first month in the new zone.
        from: Month,
        /// The current month, which keeps its zone.
        current: Month,
    },
    /// Assigns a version of a plan.
    AssignPlan {
        pin: Pin,
        /// The currency of the plan.
        currency: Currency,
        /// The instant from which the plan applies.
        from: Timestamp,
        /// The time of the command.
        now: Timestamp,
        /// The notice to the customer: required if `from` lies in the future, otherwise rejected.
        notice: Option<String>,
    },
    /// Overrides the price of a meter.
    OverridePrice {
        meter: Meter,
        /// The price, or `None` to restore the price of the plan.
        charge: Option<ChargeDefinition>,
        /// The instant from which the override applies.
        from: Timestamp,
    },
    /// Grants a discount on each subtotal.
    GrantDiscount {
        /// The discount in percent.
        percent: Decimal,
        reason: String,
    },
    /// Grants credit that is consumed before anything is due.
    GrantCredit { amount: Decimal, reason: String },
    /// Records total usage up to the end of a day.
    RecordUsage(UsageMetered),
    /// Sets or removes the monthly budget.
    SetBudget {
        /// The amount, or `None` for no budget.
        amount: Option<Decimal>,
        /// The percentages of the amount at which an alert is due.
        thresholds: Vec<i32>,
        /// Whether the account queues no new jobs once the budget is used up.
        hard_stop: bool,
        /// The time of the command.
        now: Timestamp,
    },
    /// Records that a period was invoiced.
    RecordInvoice {
        invoice: Uuid,
        /// The exclusive end of the invoiced period.
        end: Timestamp,
        /// The amount of credit the invoice consumed.
        credit_used: Amount,
    },
    /// Records that an invoice was voided and returns the credit it consumed.
    RecordVoid { invoice: Uuid },
    /// Raises the alerts of all thresholds reached.
    CheckBudget {
        month: Month,
        /// The cost of the usage so far.
        actual: Amount,
        /// The expected cost at the end of the month, or `None` once the month has ended.
        forecast: Option<Amount>,
    },
}

/// Reasons an account rejects a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    #[error("the account does not exist")]
    NotFound,
    #[error("the account exists already")]
    AlreadyExists,
    /// The currency of the plan differs from the currency of the account.
    #[error("the account uses {account} and the plan uses {plan}")]
    OtherCurrency { account: String, plan: &'static str },
    /// The change would affect a period that is invoiced.
    #[error("the period up to {invoiced_until} is invoiced, and {from} is earlier")]
    PeriodInvoiced {
        /// The instant from which the change would apply.
        from: Timestamp,
        /// The exclusive end of the invoiced period.
        invoiced_until: Timestamp,
    },
    /// A value of the command is invalid.
    #[error(transparent)]
    InvalidInput(#[from] InvalidInput),
}
