//! How a line of an invoice came about, day by day.
//!
//! The problem: a line is priced as a whole, by tiers that fill up in the course of a period, and somebody asks what a day of it cost.
//!
//! The invariant: usage is taken in the order of time, and each step costs what the price of all usage until its end is above that of all
//! usage before it, so that the steps of a line sum to it, in what is metered, in each tier and in money.

use crate::{
    pricing::price_model::Part,
    rating::{rate::Line, term::Term, usage_amounts::Metered},
};

/// What a part of the period adds to a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The place of the part among all parts.
    pub part: usize,
    /// What was metered in it.
    pub metered: i128,
    /// What it adds to each tier; of volume prices it may take off, when a tier makes all units cheaper.
    pub tiers: Vec<Part>,
}

/// The steps of a line, of which there is one for each part of the period in which its meter was used under its plan. Parts are in
/// order of time, each with the place of its term.
#[must_use]
pub fn steps(line: &Line, terms: &[(Term, Metered)], parts: impl IntoIterator<Item = (usize, Metered)>) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut used = 0;
    for (part, (term, metered)) in parts.into_iter().enumerate() {
        let more = metered.of(line.meter);
        let before = used;
        used += more;
        let Some((term, _)) = terms.get(term).filter(|_| more != 0) else { continue };
        let plan = &term.plan;
        if plan.key != line.plan || plan.own.contains(&line.meter) != line.own {
            continue;
        }
        if let Some(charge) = plan.charges.get(&line.meter) {
            steps.push(Step { part, metered: more, tiers: charge.parts_between(before, used) });
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
            usage_amounts::Metered,
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
        fn the_steps_of_a_line_sum_to_it(
            models in (select(&MODELS[..]), select(&MODELS[..])),
            own in any::<bool>(),
            first in vec((0..9_000_i128, 0..9_000_i128), 0..5),
            second in vec((0..9_000_i128, 0..9_000_i128), 0..5),
        ) {
            let second_plan = if own {
                let charge: ChargeDefinition = serde_json::from_str(models.1).unwrap();
                plan(1, models.0).with_own(charge.charge().unwrap())
            } else {
                plan(2, models.1)
            };
            let span = |start, end| Span::new(Timestamp::from_millis(start), Timestamp::from_millis(end));
            let metered = |(run_ms, byte_ms): &(i128, i128)| Metered { run_ms: *run_ms, byte_ms: byte_ms * 1_000_000_000_000 };
            let sum = |all: &[(i128, i128)]| all.iter().map(metered).fold(Metered::default(), Metered::plus);
            let usage = [
                (Term { span: span(0, 10), plan: plan(1, models.0).into() }, sum(&first)),
                (Term { span: span(10, 20), plan: second_plan.into() }, sum(&second)),
            ];
            let invoice = rate(&usage, &Adjustments::default()).unwrap().unwrap();
            let parts: Vec<_> = first.iter().map(|used| (0, metered(used))).chain(second.iter().map(|used| (1, metered(used)))).collect();
            for line in &invoice.lines {
                let steps = steps(line, &usage, parts.iter().copied());
                prop_assert_eq!(steps.iter().map(|step| step.metered).sum::<i128>(), line.quantity.metered);
                let mut tiers: BTreeMap<usize, (Exact, Exact)> = BTreeMap::new();
                for tier in steps.iter().flat_map(|step| &step.tiers) {
                    let sum = tiers.entry(tier.tier).or_insert_with(|| (Exact::zero(), Exact::zero()));
                    *sum = (sum.0.plus(&tier.quantity), sum.1.plus(&tier.amount));
                }
                tiers.retain(|_, (quantity, amount)| !quantity.is_zero() || !amount.is_zero());
                let expected: BTreeMap<_, _> = line.parts.iter()
                    .filter(|part| !part.quantity.is_zero() || !part.amount.is_zero())
                    .map(|part| (part.tier, (part.quantity.clone(), part.amount.clone()))).collect();
                prop_assert_eq!(tiers, expected);
                // What is none of its plan's is none of its steps.
                for step in &steps {
                    let (term, metered) = parts[step.part];
                    let of_line = usage[term].0.plan.key == line.plan && usage[term].0.plan.own.contains(&line.meter) == line.own;
                    prop_assert!(of_line && metered.of(line.meter) == step.metered);
                }
            }
            let told = Meter::Compute;
            let lines: i128 = invoice.lines.iter().filter(|line| line.meter == told).map(|line| line.quantity.metered).sum();
            prop_assert_eq!(lines, sum(&first).plus(sum(&second)).of(told));
        }
    }
}
