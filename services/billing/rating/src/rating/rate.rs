//! From usage to an invoice.
//!
//! The problem: a customer changes plans within a period, and everyone must be able to add an invoice up by hand.
//!
//! The invariant: each line is exact until it is rounded once; what follows is done with what the lines show, in the order
//! lines → discount → minimum → tax → credit. What earlier invoices are corrected by comes after tax: it has its own discount and tax,
//! those of the month it corrects, and this month's minimum neither swallows nor lifts it. A change of plans within the period carries the volume: what a plan charges for u₂
//! after u₁ was used under others is `P(u₁ + u₂) − P(u₁)`, whatever the model. So the free units, the tiers and the packages that
//! u₁ would have used up under the new plan are used up, and a flat fee that it would have paid is not due again.

use std::collections::BTreeMap;

use bigdecimal::num_bigint::BigInt;

use crate::{
    money::{
        amount::{Amount, TooFine},
        currency::Currency,
        decimal::Decimal,
        exact::Exact,
    },
    pricing::{
        meter::{Meter, Quantity},
        plan::PlanVersion,
        price_model::{Charge, Part},
    },
    rating::{term::Term, usage_amounts::Metered},
};

/// What is done with the sum of the lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjustments {
    /// Hundredths of the subtotal that are taken off; at most 100.
    pub discount_percent: Decimal,
    /// What is charged at least, before tax.
    pub minimum: Decimal,
    /// Hundredths that are put on.
    pub tax_percent: Decimal,
    /// What has been paid already.
    pub credit: Decimal,
}

impl Default for Adjustments {
    fn default() -> Self {
        let none = Decimal::zero;
        Self { discount_percent: none(), minimum: none(), tax_percent: none(), credit: none() }
    }
}

/// What one meter costs under one version of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What was metered.
    pub meter: Meter,
    /// Under which plan.
    pub plan: PlanVersion,
    /// Whether the price is the customer's own.
    pub own: bool,
    /// How much.
    pub quantity: Quantity,
    /// Tier by tier.
    pub parts: Vec<Part>,
    /// What it costs, exactly.
    pub exact: Exact,
    /// What it costs, rounded.
    pub amount: Amount,
}

/// What a period costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoice {
    /// What all amounts are in.
    pub currency: Currency,
    /// By meter, then by plan and version; those with usage.
    pub lines: Vec<Line>,
    /// The sum of the lines.
    pub subtotal: Amount,
    /// What is due to rounding: the sum of the lines without the exact sum.
    pub rounding: Exact,
    /// What is taken off.
    pub discount: Amount,
    /// What is missing to the minimum.
    pub minimum_true_up: Amount,
    /// What is put on.
    pub tax: Amount,
    /// What earlier invoices are corrected by.
    pub corrections: Amount,
    /// The subtotal without the discount, with what is missing to the minimum, tax and corrections.
    pub total: Amount,
    /// What of the credit is used up.
    pub credit_applied: Amount,
    /// What is left to pay.
    pub amount_due: Amount,
}

/// Why there can be no invoice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RatingError {
    /// Plans of several currencies apply in the period.
    #[error("plan {} version {} is in {currency}, and the plan before it in {before}", plan.plan, plan.version)]
    CurrencyChanges {
        /// The later plan.
        plan: PlanVersion,
        /// Its currency.
        currency: &'static str,
        /// The currency before.
        before: &'static str,
    },
    /// An amount would have to be rounded.
    #[error("{field}: {source}")]
    TooFine {
        /// Which.
        field: &'static str,
        /// Why.
        source: TooFine,
    },
}

/// What usage costs, term by term in order of time; `None` when no plan applies.
///
/// # Errors
/// [`RatingError`].
pub fn rate(usage: &[(Term, Metered)], adjustments: &Adjustments) -> Result<Option<Invoice>, RatingError> {
    rate_with(usage, adjustments, &BigInt::from(0))
}

/// The same, and corrections of earlier invoices, in the smallest unit of the currency, that come to the total.
///
/// # Errors
/// [`RatingError`].
pub fn rate_with(
    usage: &[(Term, Metered)],
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
    let corrections = Amount::of_minor(corrections.clone(), currency);
    adjusted(currency, lines, Sums { subtotal, rounding, corrections }, adjustments).map(Some)
}

/// What has been added up under a plan and a meter.
struct Sum<'u> {
    charge: &'u Charge,
    metered: i128,
    parts: BTreeMap<usize, Part>,
}

fn lines(usage: &[(Term, Metered)], currency: Currency) -> Vec<Line> {
    let mut sums: BTreeMap<(Meter, &PlanVersion, bool), Sum<'_>> = BTreeMap::new();
    let mut used = Metered::default();
    for (term, metered) in usage {
        for (meter, charge) in &term.plan.charges {
            let (before, more) = (used.of(*meter), metered.of(*meter));
            if more == 0 {
                continue;
            }
            let own = term.plan.own.contains(meter);
            let sum = sums.entry((*meter, &term.plan.key, own));
            let sum = sum.or_insert_with(|| Sum { charge, metered: 0, parts: BTreeMap::new() });
            sum.metered += more;
            for part in charge.parts_between(before, before + more) {
                let tier = part.tier;
                let known = sum.parts.entry(tier);
                let known = known.or_insert_with(|| Part { tier, quantity: Exact::zero(), amount: Exact::zero() });
                known.quantity = known.quantity.plus(&part.quantity);
                known.amount = known.amount.plus(&part.amount);
            }
        }
        used = used.plus(*metered);
    }
    let line = |((meter, plan, own), sum): ((Meter, &PlanVersion, bool), Sum<'_>)| {
        let parts: Vec<_> = sum.parts.into_values().collect();
        let exact = parts.iter().fold(Exact::zero(), |exact, part| exact.plus(&part.amount));
        let amount = Amount::rounded(&exact, currency);
        let quantity = Quantity { metered: sum.metered, unit: sum.charge.unit };
        Line { meter, plan: plan.clone(), own, quantity, parts, exact, amount }
    };
    sums.into_iter().map(line).collect()
}

/// The sum of the lines, what is due to rounding, and what earlier invoices are corrected by.
struct Sums {
    subtotal: Amount,
    rounding: Exact,
    corrections: Amount,
}

/// What follows from the sum of the lines. Of a sum below 0, which a volume price can make, nothing is discounted.
fn adjusted(
    currency: Currency,
    lines: Vec<Line>,
    Sums { subtotal, rounding, corrections }: Sums,
    adjustments: &Adjustments,
) -> Result<Invoice, RatingError> {
    let given =
        |field, decimal| Amount::given(decimal, currency).map_err(|source| RatingError::TooFine { field, source });
    let (minimum, credit) = (given("minimum", &adjustments.minimum)?, given("credit", &adjustments.credit)?);
    let discount = subtotal.percent(&adjustments.discount_percent).at_least_nothing();
    let discounted = subtotal.minus(&discount);
    // No minimum is not a minimum of 0, which would lift a sum below it.
    let minimum_true_up = if minimum.is_zero() { minimum } else { minimum.minus(&discounted).at_least_nothing() };
    let before_tax = discounted.plus(&minimum_true_up);
    let tax = before_tax.percent(&adjustments.tax_percent);
    let total = before_tax.plus(&tax).plus(&corrections);
    let credit_applied = credit.min(total.clone()).at_least_nothing();
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
