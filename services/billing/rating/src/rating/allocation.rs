//! Allocation of the lines of an invoice to parts of the usage, such as jobs.
//!
//! Prices apply to whole quantities, with tiers, packages and free units, and a line is rounded once. So the
//! cost of a part is a share of the price of the whole. Prices also change: usage under an earlier price must
//! not pay the later one.
//!
//! Each price of a line is allocated in proportion to the usage of the parts while it applied. A line has one
//! price, the one of its plan version, unless a price override changed within the period. Exact costs sum to
//! the exact lines. Rounded costs sum to the amounts of the lines, by largest remainder.

use crate::{
    money::{allocation::apportion, amount::Amount, exact::Exact},
    pricing::price_model::Charge,
    rating::{
        rate::{Invoice, InvoiceLine},
        term::Term,
        usage_amounts::UsageAmounts,
    },
};

/// The cost of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    /// The exact cost.
    pub exact: Exact,
    /// The rounded cost; the shares of all parts sum to the lines.
    pub share: Amount,
}

/// Allocates the lines of an invoice to parts. Each part gives its usage in each term of the invoice, and
/// parts are ordered by id; together they are the usage of the invoice.
#[must_use]
pub fn allocate_costs(invoice: &Invoice, usage: &[(Term, UsageAmounts)], parts: &[Vec<UsageAmounts>]) -> Vec<Cost> {
    let nothing = Cost { exact: Exact::zero(), share: Amount::zero(invoice.currency) };
    let mut costs = vec![nothing; parts.len()];
    for line in &invoice.lines {
        let (mut exact, mut allocated) = (Exact::zero(), Amount::zero(invoice.currency));
        for price in prices(line, usage) {
            // The prices of a line are rounded together.
            exact = exact.plus(&price.exact);
            let amount = Amount::rounded(&exact, invoice.currency).minus(&allocated);
            allocated = allocated.plus(&amount);
            let used = |part: &Vec<UsageAmounts>| {
                price.terms.iter().filter_map(|term| part.get(*term)).map(|metered| metered.get(line.meter)).sum()
            };
            let weights: Vec<i128> = parts.iter().map(used).collect();
            let whole: i128 = weights.iter().sum();
            let shares = apportion(amount.minor(), &weights);
            for (index, (cost, (weight, share))) in costs.iter_mut().zip(weights.into_iter().zip(shares)).enumerate() {
                // If the parts sum to 0 because some are negative, all goes to the first, as the rounded
                // amount does.
                let part = if whole == 0 && index == 0 { price.exact.clone() } else { price.exact.part(weight, whole) };
                cost.exact = cost.exact.plus(&part);
                cost.share = cost.share.plus(&Amount::from_minor(share, invoice.currency));
            }
        }
    }
    costs
}

/// The exact price of a line at one charge.
struct LinePrice<'u> {
    charge: &'u Charge,
    /// Indexes of the terms in which the charge applies.
    terms: Vec<usize>,
    exact: Exact,
}

/// Lists the prices of a line in order of time. As on the invoice, a later term continues at the usage of all
/// earlier terms.
fn prices<'u>(line: &InvoiceLine, usage: &'u [(Term, UsageAmounts)]) -> Vec<LinePrice<'u>> {
    let (mut prices, mut before): (Vec<LinePrice<'_>>, _) = (Vec::new(), 0);
    for (index, (term, metered)) in usage.iter().enumerate() {
        let after = before + metered.get(line.meter);
        if let Some(charge) = term.plan.charges.get(&line.meter).filter(|_| is_of(line, term)) {
            let exact = charge.price(after).minus(&charge.price(before));
            match prices.iter_mut().find(|price| price.charge == charge) {
                Some(price) => {
                    price.terms.push(index);
                    price.exact = price.exact.plus(&exact);
                }
                None => prices.push(LinePrice { charge, terms: vec![index], exact }),
            }
        }
        before = after;
    }
    prices
}

/// Returns whether a line charges for usage in a term.
#[must_use]
pub fn is_of(line: &InvoiceLine, term: &Term) -> bool {
    term.plan.key == line.plan && term.plan.overridden.contains(&line.meter) == line.overridden
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use epoch::Timestamp;
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::{Cost, allocate_costs};
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
            usage_amounts::UsageAmounts,
        },
    };

    fn charge(json: &str) -> ChargeDefinition {
        serde_json::from_str(json).unwrap()
    }

    fn plan(version: u32, definitions: &[ChargeDefinition]) -> Plan {
        let key = PlanVersion { plan: "p".into(), version };
        Plan::new(key, "EUR".parse().unwrap(), charges(definitions).unwrap())
    }

    /// A flat price of a second.
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

    /// Rates parts with usage in the terms of these plans, and returns the invoice and the costs of the
    /// parts.
    fn allocated(plans: &[Plan], parts: &[Vec<UsageAmounts>]) -> (Invoice, Vec<Cost>) {
        let mut usage = Vec::new();
        for (term, (index, plan)) in (0_i64..).zip(plans.iter().enumerate()) {
            let span = Span::new(Timestamp::from_millis(term), Timestamp::from_millis(term + 1));
            let metered = parts.iter().fold(UsageAmounts::default(), |sum, part| sum.plus(&part[index]));
            usage.push((Term { span, plan: Arc::new(plan.clone()) }, metered));
        }
        let invoice = rate(&usage, &Adjustments::default()).unwrap().unwrap();
        let costs = allocate_costs(&invoice, &usage, parts);
        (invoice, costs)
    }

    fn seconds(seconds: i128) -> UsageAmounts {
        UsageAmounts::of(0, seconds * 1_000)
    }

    fn shares(costs: &[Cost]) -> Vec<String> {
        costs.iter().map(|cost| cost.share.to_string()).collect()
    }

    #[test]
    fn usage_before_a_price_change_keeps_its_price() {
        let parts = [vec![seconds(100), seconds(0)], vec![seconds(0), seconds(100)]];
        let (_, costs) = allocated(&[plan(1, &[flat("1")]), plan(2, &[flat("10")])], &parts);
        assert_eq!(shares(&costs), ["100.00", "1000.00"]);
        // A changed price override is one line with two prices.
        let overridden = |unit_price| plan(1, &[flat("5")]).with_override(flat(unit_price).charge().unwrap());
        let (invoice, costs) = allocated(&[overridden("0.001"), overridden("0.01204")], &parts);
        assert_eq!((invoice.lines.len(), invoice.subtotal.to_string()), (1, "1.30".to_owned()));
        assert_eq!(shares(&costs), ["0.10", "1.20"]);
    }

    #[test]
    fn terms_with_one_price_are_allocated_together() {
        // 100 seconds cost 1 each and further ones 3. A storage price that changes meanwhile does not split
        // compute.
        let tiers = charge(
            r#"{"meter":"compute","unit":"s","model":"graduated",
            "tiers":[{"up_to":"100","unit_price":"1"},{"up_to":null,"unit_price":"3"}]}"#,
        );
        let stored = |unit_price: &str| {
            let json = format!(r#"{{"meter":"storage","unit":"GB.h","model":"flat","unit_price":"{unit_price}"}}"#);
            charge(&json).charge().unwrap()
        };
        let before = plan(1, &[tiers]);
        let plans = [before.clone().with_override(stored("1")), before.with_override(stored("2"))];
        let (_, costs) = allocated(&plans, &[vec![seconds(100), seconds(0)], vec![seconds(0), seconds(100)]]);
        assert_eq!(shares(&costs), ["200.00", "200.00"]);
    }

    /// Up to five terms, of two plan versions and two price overrides.
    fn any_plans() -> impl Strategy<Value = Vec<Plan>> {
        let overridden = |unit_price| tiered(1).with_override(flat(unit_price).charge().unwrap());
        vec(select(vec![tiered(1), tiered(2), overridden("0.0133"), overridden("0.21"), tiered(1)]), 5)
    }

    fn any_parts() -> impl Strategy<Value = Vec<Vec<UsageAmounts>>> {
        let metered = (0..20_000_000_000_000_000_i128, 0..500_000_i128);
        let metered = prop_oneof![2 => Just((0, 0)), 3 => metered];
        vec(vec(metered.prop_map(|(byte_ms, run_ms)| UsageAmounts::of(byte_ms, run_ms)), 5), 1..30)
    }

    proptest! {
        #[test]
        fn parts_sum_to_the_lines(plans in any_plans(), parts in any_parts()) {
            let (invoice, costs) = allocated(&plans, &parts);
            let shares = costs.iter().fold(Amount::zero(invoice.currency), |sum, cost| sum.plus(&cost.share));
            prop_assert_eq!(shares, invoice.subtotal.clone());
            let exact = costs.iter().fold(Exact::zero(), |sum, cost| sum.plus(&cost.exact));
            prop_assert_eq!(exact, invoice.lines.iter().fold(Exact::zero(), |sum, line| sum.plus(&line.exact)));
        }

        /// With flat prices, the cost of a part depends only on its own usage in each term.
        #[test]
        fn flat_prices_charge_each_part_for_its_own_usage(prices in vec(0..1_000_u32, 5), parts in any_parts()) {
            let mut plans = Vec::new();
            for (version, price) in (1..).zip(&prices) {
                plans.push(plan(version % 4, &[flat("1")]).with_override(flat(&format!("0.{price:03}")).charge().unwrap()));
            }
            for (part, cost) in parts.iter().zip(allocated(&plans, &parts).1) {
                let mut alone = Exact::zero();
                for (plan, metered) in plans.iter().zip(part) {
                    alone = alone.plus(&plan.charges[&Meter::Compute].price(metered.get(Meter::Compute)));
                }
                prop_assert_eq!(cost.exact, alone);
            }
        }
    }
}
