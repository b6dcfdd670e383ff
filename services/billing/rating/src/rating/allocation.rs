//! What parts of usage cost: an invoice's lines, told by job.
//!
//! The problem: prices are of a whole quantity, with tiers, packages and free units, and a line is rounded once; a job's cost is a
//! share of what the whole comes to. And prices change: who used something under the plan before doesn't pay what it costs now.
//!
//! The invariant: what one price comes to is divided in proportion to what the parts used of the meter while it applied. A line has one
//! price, that of its version of a plan, unless it is the customer's own and changed. The exact costs of all parts sum to the exact
//! lines, and the rounded ones, by largest remainder, to what the lines show.

use crate::{
    money::{allocation::apportion, amount::Amount, exact::Exact},
    pricing::price_model::Charge,
    rating::{
        rate::{Invoice, Line},
        term::Term,
        usage_amounts::Metered,
    },
};

/// What a part costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    /// Exactly.
    pub exact: Exact,
    /// Rounded so that all parts sum to the lines.
    pub share: Amount,
}

/// What each part costs of an invoice's lines. `parts` say what each used in each of the terms that the invoice is of, in the order of
/// ids; together they are the usage that the invoice charges for.
#[must_use]
pub fn breakdown(invoice: &Invoice, usage: &[(Term, Metered)], parts: &[Vec<Metered>]) -> Vec<Cost> {
    let nothing = Cost { exact: Exact::zero(), share: Amount::zero(invoice.currency) };
    let mut costs = vec![nothing; parts.len()];
    for line in &invoice.lines {
        let (mut exact, mut told) = (Exact::zero(), Amount::zero(invoice.currency));
        for price in prices(line, usage) {
            // The line's rounding is that of its prices together.
            exact = exact.plus(&price.exact);
            let amount = Amount::rounded(&exact, invoice.currency).minus(&told);
            told = told.plus(&amount);
            let used = |part: &Vec<Metered>| {
                price.terms.iter().filter_map(|term| part.get(*term)).map(|metered| metered.of(line.meter)).sum()
            };
            let weights: Vec<i128> = parts.iter().map(used).collect();
            let whole: i128 = weights.iter().sum();
            let shares = apportion(amount.minor(), &weights);
            for (index, (cost, (weight, share))) in costs.iter_mut().zip(weights.into_iter().zip(shares)).enumerate() {
                // As the rounded amount does, all goes to the first where parts below 0 leave nothing of the whole.
                let part = if whole == 0 && index == 0 { price.exact.clone() } else { price.exact.part(weight, whole) };
                cost.exact = cost.exact.plus(&part);
                cost.share = cost.share.plus(&Amount::of_minor(share, invoice.currency));
            }
        }
    }
    costs
}

/// What a line comes to at one price.
struct AtOnePrice<'u> {
    charge: &'u Charge,
    /// The terms in which it applies, by place.
    terms: Vec<usize>,
    exact: Exact,
}

/// A line's prices, in order of time. A later term goes on where the usage of all terms before it ends, as on the invoice.
fn prices<'u>(line: &Line, usage: &'u [(Term, Metered)]) -> Vec<AtOnePrice<'u>> {
    let (mut prices, mut before): (Vec<AtOnePrice<'_>>, _) = (Vec::new(), 0);
    for (index, (term, metered)) in usage.iter().enumerate() {
        let after = before + metered.of(line.meter);
        if let Some(charge) = term.plan.charges.get(&line.meter).filter(|_| is_of(line, term)) {
            let exact = charge.price(after).minus(&charge.price(before));
            match prices.iter_mut().find(|price| price.charge == charge) {
                Some(price) => {
                    price.terms.push(index);
                    price.exact = price.exact.plus(&exact);
                }
                None => prices.push(AtOnePrice { charge, terms: vec![index], exact }),
            }
        }
        before = after;
    }
    prices
}

/// Whether a line charges for usage in a term.
#[must_use]
pub fn is_of(line: &Line, term: &Term) -> bool {
    term.plan.key == line.plan && term.plan.own.contains(&line.meter) == line.own
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use epoch::Timestamp;
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::{Cost, breakdown};
    use crate::{
        calendar::span::Span,
        money::{amount::Amount, exact::Exact},
        pricing::{
            components::{ChargeDefinition, charges},
            meter::Meter,
            plan::{Plan, PlanVersion},
        },
        rating::{
            rate::{Adjustments, Invoice, rate},
            term::Term,
            usage_amounts::Metered,
        },
    };

    fn charge(json: &str) -> ChargeDefinition {
        serde_json::from_str(json).unwrap()
    }

    fn plan(version: u32, definitions: &[ChargeDefinition]) -> Plan {
        let key = PlanVersion { plan: "p".into(), version };
        Plan::new(key, "EUR".parse().unwrap(), charges(definitions).unwrap())
    }

    /// A second costs so much.
    fn flat(unit_price: &str) -> ChargeDefinition {
        charge(&format!(r#"{{"meter":"compute","unit":"s","model":"flat","unit_price":"{unit_price}"}}"#))
    }

    fn tiered(version: u32) -> Plan {
        let definitions = [
            charge(
                r#"{"meter":"compute","unit":"s","model":"package","free":"7","package_size":"60","package_price":"0.37"}"#,
            ),
            charge(
                r#"{"meter":"storage","unit":"GB.h","model":"graduated",
                "tiers":[{"up_to":"3","unit_price":"0.11"},{"up_to":null,"unit_price":"0.03","flat_fee":"1"}]}"#,
            ),
        ];
        plan(version, &definitions)
    }

    /// What parts cost that used this in terms of these plans; and the invoice.
    fn told(plans: &[Plan], parts: &[Vec<Metered>]) -> (Invoice, Vec<Cost>) {
        let mut usage = Vec::new();
        for (term, (index, plan)) in (0_i64..).zip(plans.iter().enumerate()) {
            let span = Span::new(Timestamp::from_millis(term), Timestamp::from_millis(term + 1));
            let metered = parts.iter().fold(Metered::default(), |sum, part| sum.plus(part[index]));
            usage.push((Term { span, plan: Arc::new(plan.clone()) }, metered));
        }
        let invoice = rate(&usage, &Adjustments::default()).unwrap().unwrap();
        let costs = breakdown(&invoice, &usage, parts);
        (invoice, costs)
    }

    fn seconds(seconds: i128) -> Metered {
        Metered { byte_ms: 0, run_ms: seconds * 1_000 }
    }

    fn shares(costs: &[Cost]) -> Vec<String> {
        costs.iter().map(|cost| cost.share.to_string()).collect()
    }

    #[test]
    fn what_was_used_before_a_price_changed_costs_what_it_cost_then() {
        let parts = [vec![seconds(100), seconds(0)], vec![seconds(0), seconds(100)]];
        let (_, costs) = told(&[plan(1, &[flat("1")]), plan(2, &[flat("10")])], &parts);
        assert_eq!(shares(&costs), ["100.00", "1000.00"]);
        // An own price that changed is one line, and two prices.
        let own = |unit_price| plan(1, &[flat("5")]).with_own(flat(unit_price).charge().unwrap());
        let (invoice, costs) = told(&[own("0.001"), own("0.01204")], &parts);
        assert_eq!((invoice.lines.len(), invoice.subtotal.to_string()), (1, "1.30".to_owned()));
        assert_eq!(shares(&costs), ["0.10", "1.20"]);
    }

    #[test]
    fn terms_of_one_price_are_one_price() {
        // 100 seconds at 1, what is more at 3; a price of storage that changes meanwhile divides nothing.
        let tiers = charge(
            r#"{"meter":"compute","unit":"s","model":"graduated",
            "tiers":[{"up_to":"100","unit_price":"1"},{"up_to":null,"unit_price":"3"}]}"#,
        );
        let stored = |unit_price: &str| {
            let json = format!(r#"{{"meter":"storage","unit":"GB.h","model":"flat","unit_price":"{unit_price}"}}"#);
            charge(&json).charge().unwrap()
        };
        let before = plan(1, &[tiers]);
        let plans = [before.clone().with_own(stored("1")), before.with_own(stored("2"))];
        let (_, costs) = told(&plans, &[vec![seconds(100), seconds(0)], vec![seconds(0), seconds(100)]]);
        assert_eq!(shares(&costs), ["200.00", "200.00"]);
    }

    /// In up to five terms, of two versions of a plan, with the plan's price or one of two of one's own.
    fn any_plans() -> impl Strategy<Value = Vec<Plan>> {
        let own = |unit_price| tiered(1).with_own(flat(unit_price).charge().unwrap());
        vec(select(vec![tiered(1), tiered(2), own("0.0133"), own("0.21"), tiered(1)]), 5)
    }

    fn any_parts() -> impl Strategy<Value = Vec<Vec<Metered>>> {
        let metered = (0..20_000_000_000_000_000_i128, 0..500_000_i128);
        let metered = prop_oneof![2 => Just((0, 0)), 3 => metered];
        vec(vec(metered.prop_map(|(byte_ms, run_ms)| Metered { byte_ms, run_ms }), 5), 1..30)
    }

    proptest! {
        #[test]
        fn parts_sum_to_the_lines(plans in any_plans(), parts in any_parts()) {
            let (invoice, costs) = told(&plans, &parts);
            let shares = costs.iter().fold(Amount::zero(invoice.currency), |sum, cost| sum.plus(&cost.share));
            prop_assert_eq!(shares, invoice.subtotal.clone());
            let exact = costs.iter().fold(Exact::zero(), |sum, cost| sum.plus(&cost.exact));
            prop_assert_eq!(exact, invoice.lines.iter().fold(Exact::zero(), |sum, line| sum.plus(&line.exact)));
        }

        /// At prices of a unit, what a part costs is what its usage comes to in each term, whatever others use and when.
        #[test]
        fn at_prices_of_a_unit_each_part_pays_for_its_own(prices in vec(0..1_000_u32, 5), parts in any_parts()) {
            let mut plans = Vec::new();
            for (version, price) in (1..).zip(&prices) {
                plans.push(plan(version % 4, &[flat("1")]).with_own(flat(&format!("0.{price:03}")).charge().unwrap()));
            }
            for (part, cost) in parts.iter().zip(told(&plans, &parts).1) {
                let mut alone = Exact::zero();
                for (plan, metered) in plans.iter().zip(part) {
                    alone = alone.plus(&plan.charges[&Meter::Compute].price(metered.run_ms));
                }
                prop_assert_eq!(cost.exact, alone);
            }
        }
    }
}
