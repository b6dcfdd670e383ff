//! Commands and errors of the invoice.

use contracts::invoice::{InvoiceDrafted, InvoiceEvent, InvoiceFinalized};
use uuid::Uuid;

use crate::{
    invoice::line_amount::LineAmount,
    money::{amount::InvalidAmount, currency::UnknownCurrency},
    validation::InvalidInput,
};

/// Commands of an invoice.
#[derive(Debug, Clone, PartialEq)]
pub enum InvoiceCommand {
    /// Starts a draft.
    Draft(InvoiceDrafted),
    /// Freezes the invoice and assigns its number.
    Finalize(Box<InvoiceFinalized>),
    /// Voids the invoice; a finalized one is undone by a credit note.
    Void {
        reason: String,
        /// The number of the credit note, if one is needed.
        credit_note: i64,
        /// Void invoices among those that this one corrects. Their credit notes have returned the corrections
        /// already.
        void: Vec<Uuid>,
    },
    /// Releases the adjustments that a void invoice has settled.
    Release {
        /// The void invoice.
        settled_in: Uuid,
    },
    /// Books the differences to the current amounts.
    Adjust {
        /// All current lines and derived amounts.
        lines: Vec<LineAmount>,
        /// The invoice that settles the differences.
        settled_in: Uuid,
        reason: String,
    },
}

/// Reasons an invoice rejects a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvoiceError {
    #[error("the invoice does not exist")]
    NotFound,
    #[error("the invoice is finalized under the number {number}")]
    Finalized { number: i64 },
    #[error("the invoice is a draft")]
    Draft,
    #[error("the invoice is void: {reason}")]
    Void { reason: String },
    /// A value of the command is invalid.
    #[error(transparent)]
    InvalidInput(#[from] InvalidInput),
    /// The currency of the invoice is unknown.
    #[error(transparent)]
    Currency(#[from] UnknownCurrency),
    /// A stored amount cannot be parsed.
    #[error(transparent)]
    Amount(#[from] InvalidAmount),
}

/// The events of a command, or the reason for its rejection.
pub(super) type Decision = Result<Vec<InvoiceEvent>, InvoiceError>;
