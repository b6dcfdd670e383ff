//! Invoice lines and derived amounts, as adjustments compare them.

use crate::{
    money::amount::Amount,
    rating::rate::{Invoice, InvoiceLine},
};

/// The name of the discount in adjustments.
pub const DISCOUNT: &str = "discount";
/// The name of the true-up to the minimum in adjustments.
pub const MINIMUM: &str = "minimum_true_up";
/// The name of the tax in adjustments.
pub const TAX: &str = "tax";

/// The key of an invoice line or of a derived amount.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineKey {
    /// `storage` or `compute`; or `discount`, `minimum_true_up` or `tax`.
    pub meter: String,
    /// The id of the plan; empty for derived amounts.
    pub plan: String,
    /// The version of the plan; 0 for derived amounts.
    pub plan_version: i32,
}

impl LineKey {
    pub(super) fn derived(name: &str) -> Self {
        Self { meter: name.to_owned(), plan: String::new(), plan_version: 0 }
    }
}

/// The current amount of a line, or its difference to the charges so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineAmount {
    pub key: LineKey,
    /// The metered amount; 0 for derived amounts.
    pub metered: i128,
    /// The contribution to the total.
    pub amount: Amount,
}

impl LineAmount {
    /// Lists the lines and the derived amounts of an invoice. They sum to the charge for its month.
    #[must_use]
    pub fn all_of(invoice: &Invoice) -> Vec<Self> {
        let line = |line: &InvoiceLine| Self {
            key: LineKey {
                meter: line.meter.as_str().to_owned(),
                plan: line.plan.plan.clone(),
                plan_version: i32::try_from(line.plan.version).unwrap_or(i32::MAX),
            },
            metered: line.quantity.metered,
            amount: line.amount.clone(),
        };
        let off = Amount::zero(invoice.currency).minus(&invoice.discount);
        let derived = [(DISCOUNT, off), (MINIMUM, invoice.minimum_true_up.clone()), (TAX, invoice.tax.clone())];
        let derived = derived.map(|(name, amount)| Self { key: LineKey::derived(name), metered: 0, amount });
        invoice.lines.iter().map(line).chain(derived).collect()
    }
}
