//! Explanation of an invoice line by intervals, such as days.
//!
//! A line is priced as a whole while its tiers fill up over the period. Each step takes usage in order of
//! time, and costs the price of all usage up to its end minus the price of all usage before it. So the steps
//! of a line sum to the line, in metered amounts, in each tier and in money.

use crate::{
    pricing::price_model::PricedTier,
    rating::{rate::InvoiceLine, term::Term, usage_amounts::UsageAmounts},
};

/// The contribution of an interval to a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The index of the interval.
    pub interval: usize,
    /// The metered amount of the interval.
    pub metered: i128,
    /// The contribution to each tier. It may be negative under a volume price, when a tier makes all units
    /// cheaper.
    pub tiers: Vec<PricedTier>,
}

/// Returns the steps of a line: one for each interval with usage of its meter under its plan. Intervals come
/// in order of time, each with the index of its term.
#[must_use]
pub fn steps(
    line: &InvoiceLine,
    terms: &[(Term, UsageAmounts)],
    intervals: impl IntoIterator<Item = (usize, UsageAmounts)>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut used = 0;
    for (interval, (term, amounts)) in intervals.into_iter().enumerate() {
        let more = amounts.get(line.meter);
        let before = used;
        used += more;
        let Some((term, _)) = terms.get(term).filter(|_| more != 0) else { continue };
        let plan = &term.plan;
        if plan.key != line.plan || plan.overridden.contains(&line.meter) != line.overridden {
            continue;
        }
        if let Some(charge) = plan.charges.get(&line.meter) {
            steps.push(Step { interval, metered: more, tiers: charge.priced_tiers_between(before, used) });
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use epoch::Timestamp;
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::steps;
    use crate::{
        calendar::span::Span,
        money::exact::Exact,
        pricing::{
            components::{ChargeDefinition, charges},
            meter::Meter,
            plan::{Plan, PlanVersion},
        },
        rating::{
            rate::{Adjustments, rate},
            term::Term,
            usage_amounts::UsageAmounts,
        },
    };

    fn plan(version: u32, compute: &str) -> Plan {
        let compute: ChargeDefinition = serde_json::from_str(compute).unwrap();
        let storage = r#"{"meter":"storage","unit":"GB.h","model":"flat","unit_price":"0.5"}"#;
        let charges = charges(&[compute, serde_json::from_str(storage).unwrap()]).unwrap();
        Plan::new(PlanVersion { plan: "p".into(), version }, "EUR".parse().unwrap(), charges)
    }

    const MODELS: [&str; 4] = [
        r#"{"meter":"compute","unit":"s","model":"flat","unit_price":"0.3"}"#,
        r#"{"meter":"compute","unit":"s","model":"package","free":"3","package_size":"7","package_price":"1.1"}"#,
        r#"{"meter":"compute","unit":"s","model":"graduated","tiers":[{"up_to":"10","unit_price":"1"},{"up_to":null,"unit_price":"0.2","flat_fee":"3"}]}"#,
        r#"{"meter":"compute","unit":"s","model":"volume","tiers":[{"up_to":"10","unit_price":"1"},{"up_to":null,"unit_price":"0.2","flat_fee":"3"}]}"#,
    ];

    proptest! {
        #[test]
        fn steps_sum_to_their_line(
            models in (select(&MODELS[..]), select(&MODELS[..])),
            overridden in any::<bool>(),
            first in vec((0..9_000_i128, 0..9_000_i128), 0..5),
            second in vec((0..9_000_i128, 0..9_000_i128), 0..5),
        ) {
            let second_plan = if overridden {
                let charge: ChargeDefinition = serde_json::from_str(models.1).unwrap();
                plan(1, models.0).with_override(charge.charge().unwrap())
            } else {
                plan(2, models.1)
            };
            let span = |start, end| Span::new(Timestamp::from_millis(start), Timestamp::from_millis(end));
            let metered = |(run_ms, byte_ms): &(i128, i128)| UsageAmounts::of(byte_ms * 1_000_000_000_000, *run_ms);
            let sum = |all: &[(i128, i128)]| all.iter().map(metered).fold(UsageAmounts::default(), |sum, more| sum.plus(&more));
            let usage = [
                (Term { span: span(0, 10), plan: plan(1, models.0).into() }, sum(&first)),
                (Term { span: span(10, 20), plan: second_plan.into() }, sum(&second)),
            ];
            let invoice = rate(&usage, &Adjustments::default()).unwrap().unwrap();
            let parts: Vec<_> = first.iter().map(|used| (0, metered(used))).chain(second.iter().map(|used| (1, metered(used)))).collect();
            for line in &invoice.lines {
                let steps = steps(line, &usage, parts.iter().cloned());
                prop_assert_eq!(steps.iter().map(|step| step.metered).sum::<i128>(), line.quantity.metered);
                let mut tiers: BTreeMap<usize, (Exact, Exact)> = BTreeMap::new();
                for tier in steps.iter().flat_map(|step| &step.tiers) {
                    let sum = tiers.entry(tier.tier).or_insert_with(|| (Exact::zero(), Exact::zero()));
                    *sum = (sum.0.plus(&tier.quantity), sum.1.plus(&tier.amount));
                }
                tiers.retain(|_, (quantity, amount)| !quantity.is_zero() || !amount.is_zero());
                let expected: BTreeMap<_, _> = line.tiers.iter()
                    .filter(|part| !part.quantity.is_zero() || !part.amount.is_zero())
                    .map(|part| (part.tier, (part.quantity.clone(), part.amount.clone()))).collect();
                prop_assert_eq!(tiers, expected);
                // Usage under another plan belongs to no step of the line.
                for step in &steps {
                    let (term, metered) = &parts[step.interval];
                    let of_line = usage[*term].0.plan.key == line.plan && usage[*term].0.plan.overridden.contains(&line.meter) == line.overridden;
                    prop_assert!(of_line && metered.get(line.meter) == step.metered);
                }
            }
            let meter = Meter::Compute;
            let lines: i128 = invoice.lines.iter().filter(|line| line.meter == meter).map(|line| line.quantity.metered).sum();
            prop_assert_eq!(lines, sum(&first).plus(&sum(&second)).get(meter));
        }
    }
}
