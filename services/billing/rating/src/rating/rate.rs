//! Rating: from usage by term to an invoice.
//!
//! Each line is exact until it is rounded once, and everyone can add up the rest by hand: lines → discount →
//! minimum → tax → corrections → credit. Corrections of earlier invoices come after tax. They carry the
//! discount and the tax of the month they correct, and this month's minimum neither absorbs nor raises them.
//!
//! A plan change within the period carries the volume. Usage u₂ after u₁ under other plans costs `P(u₁ + u₂)
//! − P(u₁)` in every model. So u₁ uses up free units, tiers and packages of the new plan as well, and a flat
//! fee that u₁ would have paid is not due again.
//!
//! Example: the new plan has 100 free seconds and then charges 1.00. After 80 seconds under the old plan, 50
//! seconds under the new one cost 30.00.

use std::collections::BTreeMap;

use bigdecimal::num_bigint::BigInt;

use crate::{
    money::{
        amount::{Amount, ExcessPrecision},
        currency::Currency,
        decimal::Decimal,
        exact::Exact,
    },
    pricing::{
        meter::{Meter, Quantity},
        plan::PlanVersion,
        price_model::{Charge, PricedTier},
    },
    rating::{term::Term, usage_amounts::UsageAmounts},
};

/// Adjustments of the sum of the lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjustments {
    /// The discount on the subtotal in percent, at most 100.
    pub discount_percent: Decimal,
    /// The minimum charge before tax.
    pub minimum: Decimal,
    /// The tax in percent.
    pub tax_percent: Decimal,
    /// The credit available.
    pub credit: Decimal,
}

impl Default for Adjustments {
    fn default() -> Self {
        let none = Decimal::zero;
        Self { discount_percent: none(), minimum: none(), tax_percent: none(), credit: none() }
    }
}

/// The charge of one meter under one version of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvoiceLine {
    pub meter: Meter,
    pub plan: PlanVersion,
    /// Whether the price is a price override of the account.
    pub overridden: bool,
    pub quantity: Quantity,
    /// The quantity and the price in each tier.
    pub tiers: Vec<PricedTier>,
    /// The price before rounding.
    pub exact: Exact,
    /// The rounded price.
    pub amount: Amount,
}

/// The charge for a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoice {
    /// The currency of all amounts.
    pub currency: Currency,
    /// Lines with usage, by meter, then by plan and version.
    pub lines: Vec<InvoiceLine>,
    /// The sum of the lines.
    pub subtotal: Amount,
    /// The sum of the rounded lines minus the sum of the exact lines.
    pub rounding: Exact,
    /// The amount subtracted from the subtotal.
    pub discount: Amount,
    /// The amount missing to the minimum charge.
    pub minimum_true_up: Amount,
    pub tax: Amount,
    /// The sum of the corrections of earlier invoices.
    pub corrections: Amount,
    /// Subtotal − discount + true-up + tax + corrections.
    pub total: Amount,
    /// The part of the credit that the invoice consumes.
    pub credit_applied: Amount,
    /// The total minus the credit applied.
    pub amount_due: Amount,
}

/// Reasons usage cannot be rated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RatingError {
    /// Plans with different currencies apply in the period.
    #[error("plan {} version {} uses {currency}, and an earlier plan of the period uses {before}", plan.plan, plan.version)]
    CurrencyChanges {
        plan: PlanVersion,
        currency: &'static str,
        /// The currency of the earlier plan.
        before: &'static str,
    },
    /// An amount has more digits than the currency.
    #[error("{field}: {source}")]
    ExcessPrecision { field: &'static str, source: ExcessPrecision },
}

/// Rates usage by term, in order of time. Returns `None` without terms.
///
/// # Errors
/// [`RatingError`].
pub fn rate(usage: &[(Term, UsageAmounts)], adjustments: &Adjustments) -> Result<Option<Invoice>, RatingError> {
    rate_with(usage, adjustments, &BigInt::from(0))
}

/// Rates usage with corrections of earlier invoices, in the smallest unit of the currency, added to the
/// total.
///
/// # Errors
/// [`RatingError`].
pub fn rate_with(
    usage: &[(Term, UsageAmounts)],
    adjustments: &Adjustments,
    corrections: &BigInt,
) -> Result<Option<Invoice>, RatingError> {
    let Some((first, _)) = usage.first() else { return Ok(None) };
    let currency = first.plan.currency;
    if let Some((other, _)) = usage.iter().find(|(term, _)| term.plan.currency != currency) {
        let plan = other.plan.key.clone();
        return Err(RatingError::CurrencyChanges {
            plan,
            currency: other.plan.currency.code(),
            before: currency.code(),
        });
    }
    let lines = lines(usage, currency);
    let subtotal = lines.iter().fold(Amount::zero(currency), |sum, line| sum.plus(&line.amount));
    let exact = lines.iter().fold(Exact::zero(), |sum, line| sum.plus(&line.exact));
    let rounding = subtotal.exact().minus(&exact);
    let corrections = Amount::from_minor(corrections.clone(), currency);
    complete(currency, lines, LineTotals { subtotal, rounding, corrections }, adjustments).map(Some)
}

/// The running sum of a line.
struct LineSum<'u> {
    charge: &'u Charge,
    metered: i128,
    tiers: BTreeMap<usize, PricedTier>,
}

fn lines(usage: &[(Term, UsageAmounts)], currency: Currency) -> Vec<InvoiceLine> {
    let mut sums: BTreeMap<(Meter, &PlanVersion, bool), LineSum<'_>> = BTreeMap::new();
    let mut used = UsageAmounts::default();
    for (term, metered) in usage {
        for (meter, charge) in &term.plan.charges {
            let (before, more) = (used.get(*meter), metered.get(*meter));
            if more == 0 {
                continue;
            }
            let overridden = term.plan.overridden.contains(meter);
            let sum = sums.entry((*meter, &term.plan.key, overridden));
            let sum = sum.or_insert_with(|| LineSum { charge, metered: 0, tiers: BTreeMap::new() });
            sum.metered += more;
            for part in charge.priced_tiers_between(before, before + more) {
                let tier = part.tier;
                let known = sum.tiers.entry(tier);
                let known =
                    known.or_insert_with(|| PricedTier { tier, quantity: Exact::zero(), amount: Exact::zero() });
                known.quantity = known.quantity.plus(&part.quantity);
                known.amount = known.amount.plus(&part.amount);
            }
        }
        used = used.plus(metered);
    }
    let line = |((meter, plan, overridden), sum): ((Meter, &PlanVersion, bool), LineSum<'_>)| {
        let tiers: Vec<_> = sum.tiers.into_values().collect();
        let exact = tiers.iter().fold(Exact::zero(), |exact, part| exact.plus(&part.amount));
        let amount = Amount::rounded(&exact, currency);
        let quantity = Quantity { metered: sum.metered, unit: sum.charge.unit };
        InvoiceLine { meter, plan: plan.clone(), overridden, quantity, tiers, exact, amount }
    };
    sums.into_iter().map(line).collect()
}

/// Totals over all lines.
struct LineTotals {
    subtotal: Amount,
    rounding: Exact,
    corrections: Amount,
}

/// Derives the amounts that follow from the lines. A negative subtotal, possible under a volume price, gets
/// no discount.
fn complete(
    currency: Currency,
    lines: Vec<InvoiceLine>,
    LineTotals { subtotal, rounding, corrections }: LineTotals,
    adjustments: &Adjustments,
) -> Result<Invoice, RatingError> {
    let given = |field, decimal| {
        Amount::from_decimal(decimal, currency).map_err(|source| RatingError::ExcessPrecision { field, source })
    };
    let (minimum, credit) = (given("minimum", &adjustments.minimum)?, given("credit", &adjustments.credit)?);
    let discount = subtotal.percent(&adjustments.discount_percent).non_negative();
    let discounted = subtotal.minus(&discount);
    // A minimum of 0 means none. Treated as a bound, it would raise a negative sum.
    let minimum_true_up = if minimum.is_zero() { minimum } else { minimum.minus(&discounted).non_negative() };
    let before_tax = discounted.plus(&minimum_true_up);
    let tax = before_tax.percent(&adjustments.tax_percent);
    let total = before_tax.plus(&tax).plus(&corrections);
    let credit_applied = credit.min(total.clone()).non_negative();
    let amount_due = total.minus(&credit_applied);
    Ok(Invoice {
        currency,
        lines,
        subtotal,
        rounding,
        discount,
        minimum_true_up,
        tax,
        corrections,
        total,
        credit_applied,
        amount_due,
    })
}
