//! Errors of the ledger and their problem responses.

use epoch::{ExecuteError, Timestamp, store::StoreError};
use epoch_postgres::TxError;
use http_kit::{IntoProblem, Problem};
use rating::{
    account::AccountError,
    calendar::{day::DaysError, month::Month},
    invoice::InvoiceError,
    money::amount::NotAnAmount,
    pricing::plan_aggregate::PlanError,
    rating::{rate::RatingError, term::ChargingError},
    validation::Refused,
};
use usage::read_error::ReadError;

/// An error of the ledger.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The account rejected a command.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The plan rejected a command.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The invoice rejected a command.
    #[error(transparent)]
    Invoice(#[from] InvoiceError),
    /// The account has no terms for the period.
    #[error(transparent)]
    Charging(#[from] ChargingError),
    /// A stored value is invalid.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A stored amount is invalid.
    #[error(transparent)]
    Amount(#[from] NotAnAmount),
    /// The usage cannot be priced.
    #[error(transparent)]
    Rating(#[from] RatingError),
    /// An instant lies outside of the calendar, or the time zone is unknown.
    #[error(transparent)]
    Days(#[from] DaysError),
    #[error("the period is empty")]
    EmptyPeriod,
    /// All invoices that a month can have are void.
    #[error("the invoice of {month} was voided too many times")]
    TooManyAttempts { month: Month },
    /// A month cannot be finalized before its end.
    #[error("{month} is not over; it ends at {end}")]
    NotOver { month: Month, end: Timestamp },
    /// The account changed between each reading of usage and its transaction.
    #[error("the account kept changing while its usage was read; try again")]
    Changing,
    /// The command id was used for another command.
    #[error("command id belongs to another command")]
    CommandReused,
    /// The aggregate is not at the expected version.
    #[error("{detail}")]
    Stale { detail: String },
    /// Concurrent commands kept changing the aggregate.
    #[error("{detail}")]
    Conflict { detail: String },
    /// The event store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The transaction ran out of attempts, or the event store failed.
    #[error(transparent)]
    Tx(#[from] TxError),
    /// The database failed.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// The read models failed.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl<E: std::error::Error + Into<LedgerError>> From<ExecuteError<E>> for LedgerError {
    fn from(error: ExecuteError<E>) -> Self {
        match error {
            ExecuteError::Rejected(refusal) => refusal.into(),
            ExecuteError::Store(error) => Self::Store(error),
            ExecuteError::CommandReused { .. } => Self::CommandReused,
            stale @ ExecuteError::Stale { .. } => Self::Stale { detail: stale.to_string() },
            conflict @ ExecuteError::Conflict { .. } => Self::Conflict { detail: conflict.to_string() },
        }
    }
}

impl IntoProblem for LedgerError {
    fn into_problem(self) -> Problem {
        self.into()
    }
}

/// Returns the problem of a command that was not executed. The crate of the aggregates does not know HTTP, so their errors are
/// converted to [`LedgerError`] first.
pub(crate) fn command_problem<E: std::error::Error + Into<LedgerError>>(error: ExecuteError<E>) -> Problem {
    let error: ExecuteError<LedgerError> = match error {
        ExecuteError::Rejected(refusal) => ExecuteError::Rejected(refusal.into()),
        ExecuteError::Conflict { aggregate, id, expected, actual } => {
            ExecuteError::Conflict { aggregate, id, expected, actual }
        }
        ExecuteError::Stale { aggregate, id, expected, actual } => {
            ExecuteError::Stale { aggregate, id, expected, actual }
        }
        ExecuteError::CommandReused { command_id } => ExecuteError::CommandReused { command_id },
        ExecuteError::Store(error) => ExecuteError::Store(error),
    };
    error.into()
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        let detail = error.to_string();
        match error {
            LedgerError::Account(error) => account_problem(error),
            LedgerError::Plan(error) => plan_problem(error),
            LedgerError::Invoice(error) => invoice_problem(error),
            LedgerError::Charging(ChargingError::OtherCurrency { .. }) => {
                Problem::conflict(detail).of_kind("/problems/no-plan", "the account has no plan in its currency")
            }
            LedgerError::NotOver { .. } => {
                Problem::conflict(detail).of_kind("/problems/period-not-over", "the period is not over")
            }
            LedgerError::Days(_) | LedgerError::Rating(_) => Problem::unprocessable(detail),
            LedgerError::CommandReused => {
                Problem::unprocessable("the Idempotency-Key was used before for a request with another body")
                    .of_kind("/problems/idempotency-key-reused", "idempotency key reused")
            }
            LedgerError::Stale { .. } => Problem::stale(detail),
            LedgerError::Conflict { .. } | LedgerError::TooManyAttempts { .. } | LedgerError::Changing => {
                Problem::conflict(detail)
            }
            LedgerError::EmptyPeriod | LedgerError::Charging(_) | LedgerError::Refused(_) | LedgerError::Amount(_) => {
                Problem::internal(detail)
            }
            LedgerError::Store(error) => error.into(),
            LedgerError::Tx(error) => error.into(),
            LedgerError::Sql(error) => error.into(),
            LedgerError::Read(error) => error.into(),
        }
    }
}

fn account_problem(error: AccountError) -> Problem {
    let detail = error.to_string();
    match error {
        AccountError::NotFound => Problem::not_found(detail),
        AccountError::AlreadyExists => Problem::conflict(detail),
        AccountError::Invoiced { .. } => {
            Problem::conflict(detail).of_kind("/problems/invoiced-already", "the period is invoiced already")
        }
        AccountError::OtherCurrency { .. } => {
            Problem::unprocessable(detail).of_kind("/problems/other-currency", "another currency")
        }
        AccountError::Refused(refused) => refused_at(&refused),
    }
}

fn plan_problem(error: PlanError) -> Problem {
    let detail = error.to_string();
    match error {
        PlanError::NotFound | PlanError::NoSuchVersion { .. } => Problem::not_found(detail),
        PlanError::Retired { .. } => Problem::conflict(detail).of_kind("/problems/plan-retired", "the plan is retired"),
        PlanError::Standard => {
            Problem::conflict(detail).of_kind("/problems/standard-plan", "the standard plan follows the settings")
        }
        PlanError::TooManyVersions => Problem::conflict(detail),
        PlanError::Refused(refused) => refused_at(&refused),
    }
}

fn invoice_problem(error: InvoiceError) -> Problem {
    let detail = error.to_string();
    match error {
        InvoiceError::NotFound => Problem::not_found(detail),
        InvoiceError::Finalized { .. } => {
            Problem::conflict(detail).of_kind("/problems/invoice-finalized", "the invoice is finalized")
        }
        InvoiceError::Draft => Problem::conflict(detail).of_kind("/problems/invoice-draft", "the invoice is a draft"),
        InvoiceError::Void { .. } => Problem::conflict(detail).of_kind("/problems/invoice-void", "the invoice is void"),
        InvoiceError::Refused(refused) => refused_at(&refused),
        InvoiceError::Currency(_) | InvoiceError::Amount(_) => Problem::internal(detail),
    }
}

/// Returns a 422 with the place as a JSON pointer: `charges[1].tiers` becomes `/charges/1/tiers`.
pub(crate) fn refused_at(refused: &Refused) -> Problem {
    let pointer = refused.place.replace(['.', '['], "/").replace(']', "");
    let pointer = format!("/{}", pointer.trim_start_matches('/'));
    Problem::unprocessable(refused.to_string()).at(pointer, refused.reason.clone())
}
