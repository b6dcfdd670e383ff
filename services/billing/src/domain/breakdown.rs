//! What parts of usage cost: an invoice's lines, told by job.
//!
//! The problem: prices are of a whole quantity, with tiers, packages and free units, and a line is rounded once; a job's cost is a
//! share of what the whole comes to.
//!
//! The invariant: parts are charged in proportion to what they used of a meter. Their exact costs sum to the exact lines, and their
//! rounded ones, by largest remainder, to what the lines show.

use super::{
    apportion::apportion,
    charge::Meter,
    exact::Exact,
    money::Amount,
    rating::{Invoice, Metered},
};

/// What a part costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    /// Exactly.
    pub exact: Exact,
    /// Rounded so that all parts sum to the lines.
    pub share: Amount,
}

/// What each part costs of an invoice's lines; the parts are all the usage that they charge for, in the order of ids.
#[must_use]
pub fn breakdown(invoice: &Invoice, parts: &[Metered]) -> Vec<Cost> {
    let nothing = Cost { exact: Exact::zero(), share: Amount::zero(invoice.currency) };
    let mut costs = vec![nothing; parts.len()];
    for meter in [Meter::Compute, Meter::Storage] {
        let (mut exact, mut amount) = (Exact::zero(), Amount::zero(invoice.currency));
        for line in invoice.lines.iter().filter(|line| line.meter == meter) {
            exact = exact.plus(&line.exact);
            amount = amount.plus(&line.amount);
        }
        let weights: Vec<_> = parts.iter().map(|part| part.of(meter)).collect();
        let whole: i128 = weights.iter().sum();
        let shares = apportion(amount.minor(), &weights);
        for (index, (cost, (weight, share))) in costs.iter_mut().zip(weights.into_iter().zip(shares)).enumerate() {
            // As the rounded amount does, all goes to the first where parts below 0 leave nothing of the whole.
            let part = if whole == 0 && index == 0 { exact.clone() } else { exact.part(weight, whole) };
            cost.exact = cost.exact.plus(&part);
            cost.share = cost.share.plus(&Amount::of_minor(share, invoice.currency));
        }
    }
    costs
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use epoch::Timestamp;
    use proptest::{collection::vec, prelude::*};

    use super::breakdown;
    use crate::domain::{
        exact::Exact,
        money::Amount,
        plan::{ChargeDefinition, Plan, PlanVersion, charges},
        rating::{Adjustments, Metered, Term, rate},
        span::Span,
    };

    fn tiered() -> Plan {
        let charge = |json: &str| serde_json::from_str::<ChargeDefinition>(json).unwrap();
        let definitions = [
            charge(
                r#"{"meter":"compute","unit":"s","model":"package","free":"7","package_size":"60","package_price":"0.37"}"#,
            ),
            charge(
                r#"{"meter":"storage","unit":"GB.h","model":"graduated",
                "tiers":[{"up_to":"3","unit_price":"0.11"},{"up_to":null,"unit_price":"0.03","flat_fee":"1"}]}"#,
            ),
        ];
        let key = PlanVersion { plan: "p".into(), version: 1 };
        Plan::new(key, "EUR".parse().unwrap(), charges(&definitions).unwrap())
    }

    proptest! {
        #[test]
        fn parts_sum_to_the_lines(
            parts in vec((0..20_000_000_000_000_000_i128, 0..500_000_i128), 1..30), cut in 0..30_usize,
        ) {
            let parts: Vec<_> = parts.into_iter().map(|(byte_ms, run_ms)| Metered { byte_ms, run_ms }).collect();
            let sum = |parts: &[Metered]| parts.iter().fold(Metered::default(), |sum, part| sum.plus(*part));
            // The usage falls into two terms of plans, which makes two lines of each meter.
            let (before, after) = parts.split_at(cut.min(parts.len()));
            let span = Span::new(Timestamp::from_millis(0), Timestamp::from_millis(1));
            let other = Plan { key: PlanVersion { plan: "p".into(), version: 2 }, ..tiered() };
            let terms = [(Term { span, plan: Arc::new(tiered()) }, sum(before)), (Term { span, plan: other.into() }, sum(after))];
            let invoice = rate(&terms, &Adjustments::default()).unwrap().unwrap();
            let costs = breakdown(&invoice, &parts);
            let shares = costs.iter().fold(Amount::zero(invoice.currency), |sum, cost| sum.plus(&cost.share));
            prop_assert_eq!(shares, invoice.subtotal.clone());
            let exact = costs.iter().fold(Exact::zero(), |sum, cost| sum.plus(&cost.exact));
            prop_assert_eq!(exact, invoice.lines.iter().fold(Exact::zero(), |sum, line| sum.plus(&line.exact)));
        }
    }
}
