//! Flat prices: one for each meter, without tiers and free units.
//!
//! The invariant: as a plan they charge as any other plan does, so there is one way from usage to money. The plan that stands in for
//! accounts without one and the one that is published for new accounts ([`StandardPlan`]) are made of the same prices.

use crate::{
    money::{
        currency::{Currency, UnknownCurrency},
        decimal::{Decimal, NotADecimal},
    },
    pricing::{
        components::ChargeDefinition,
        meter::Unit,
        plan::{Plan, PlanVersion},
        plan_aggregate::PlanDefinition,
        price_model::{Charge, Model},
    },
    sharing::rule::Rule,
};

/// One price for storage and one for compute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlatPrices {
    /// What both are in.
    pub currency: Currency,
    /// The price of a gigabyte-hour.
    pub gb_hour: Decimal,
    /// The price of a second.
    pub second: Decimal,
}

/// The installation's prices as a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandardPlan {
    /// What organizations without an account, and accounts that were opened without a plan, are charged by.
    pub plan: Plan,
    /// What is published for accounts to be opened by.
    pub definition: PlanDefinition,
}

/// Why prices can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// The currency is unknown.
    #[error(transparent)]
    Currency(#[from] UnknownCurrency),
    /// A price can't be read.
    #[error(transparent)]
    Price(#[from] NotADecimal),
}

impl FlatPrices {
    /// The same prices as a plan.
    #[must_use]
    pub fn plan(&self) -> StandardPlan {
        let flat = |unit, unit_price: &Decimal| Charge {
            unit,
            model: Model::Flat { free: Decimal::zero(), unit_price: unit_price.clone() },
        };
        let charges = [flat(Unit::GbHour, &self.gb_hour), flat(Unit::Second, &self.second)];
        let charges = charges.into_iter().map(|charge| (charge.meter(), charge)).collect();
        let key = PlanVersion { plan: "standard".to_owned(), version: 1 };
        StandardPlan { plan: Plan::new(key, self.currency, charges), definition: self.definition() }
    }

    fn definition(&self) -> PlanDefinition {
        let flat = |unit: Unit, unit_price: &Decimal| ChargeDefinition {
            meter: unit.meter().as_str().to_owned(),
            unit: unit.symbol().to_owned(),
            model: "flat".to_owned(),
            tiers: None,
            unit_price: Some(unit_price.clone()),
            free: None,
            package_size: None,
            package_price: None,
        };
        PlanDefinition {
            name: "Standard".to_owned(),
            currency: self.currency.code().to_owned(),
            split: Rule::default(),
            charges: vec![flat(Unit::GbHour, &self.gb_hour), flat(Unit::Second, &self.second)],
            minimum: None,
            tax_percent: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use epoch::Timestamp;

    use super::FlatPrices;
    use crate::{
        calendar::span::Span,
        rating::{
            rate::{Adjustments, rate},
            term::Term,
            usage_amounts::Metered,
        },
    };

    fn prices() -> FlatPrices {
        FlatPrices {
            currency: "EUR".parse().unwrap(),
            gb_hour: "0.005".parse().unwrap(),
            second: "0.005".parse().unwrap(),
        }
    }

    #[test]
    fn what_is_published_charges_what_stands_in_for_it() {
        let standard = prices().plan();
        assert_eq!(standard.definition.plan(standard.plan.key.clone()), Ok(standard.plan));
    }

    #[test]
    fn as_a_plan_the_total_is_the_sum_of_rounded_lines() {
        let prices = prices();
        let span = Span::new(Timestamp::from_millis(0), Timestamp::from_millis(1));
        let usage = [(
            Term { span, plan: prices.plan().plan.into() },
            Metered { byte_ms: 3_600_000_000_000_000, run_ms: 1_000 },
        )];
        let invoice = rate(&usage, &Adjustments::default()).unwrap().unwrap();
        let lines: Vec<_> = invoice
            .lines
            .iter()
            .map(|line| {
                (line.meter.as_str(), line.quantity.unit.symbol(), line.quantity.to_string(), line.amount.to_string())
            })
            .collect();
        let line = |meter, unit| (meter, unit, "1".to_owned(), "0.01".to_owned());
        assert_eq!(lines, [line("compute", "s"), line("storage", "GB.h")]);
        assert_eq!(invoice.total.to_string(), "0.02", "not the rounded sum, which is 0.01");
    }
}
