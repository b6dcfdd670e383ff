//! The standard plan: one flat price for each meter, without tiers or free units.
//!
//! The plan for accounts without one and the version published for new accounts ([`StandardPlan`]) share the
//! same prices. Both are rated like any other plan, so there is one path from usage to money.

use crate::{
    money::{
        currency::{Currency, UnknownCurrency},
        decimal::{Decimal, InvalidDecimal},
    },
    pricing::{
        components::ChargeDefinition,
        meter::Unit,
        plan::{Plan, PlanVersion},
        plan_aggregate::PlanDefinition,
        price_model::{Charge, PriceModel},
    },
    sharing::rule::SharingRule,
};

/// One price for storage and one for compute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlatPrices {
    /// The currency of both prices.
    pub currency: Currency,
    /// The price of a gigabyte-hour.
    pub gb_hour: Decimal,
    /// The price of a second.
    pub second: Decimal,
}

/// The prices of the installation as a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandardPlan {
    /// The plan of organizations without an account, and of accounts opened without a plan.
    pub plan: Plan,
    /// The definition to publish for new accounts.
    pub definition: PlanDefinition,
}

/// Errors of the configured prices.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// The currency is unknown.
    #[error(transparent)]
    Currency(#[from] UnknownCurrency),
    /// A price is not a decimal.
    #[error(transparent)]
    Price(#[from] InvalidDecimal),
}

impl FlatPrices {
    /// Builds the plan with these prices.
    #[must_use]
    pub fn plan(&self) -> StandardPlan {
        let flat = |unit, unit_price: &Decimal| Charge {
            unit,
            model: PriceModel::Flat { free: Decimal::zero(), unit_price: unit_price.clone() },
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
            split: SharingRule::default(),
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
            usage_amounts::UsageAmounts,
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
    fn published_definition_equals_the_default_plan() {
        let standard = prices().plan();
        assert_eq!(standard.definition.plan(standard.plan.key.clone()), Ok(standard.plan));
    }

    #[test]
    fn total_equals_sum_of_rounded_lines() {
        let prices = prices();
        let span = Span::new(Timestamp::from_millis(0), Timestamp::from_millis(1));
        let usage = [(Term { span, plan: prices.plan().plan.into() }, UsageAmounts::of(3_600_000_000_000_000, 1_000))];
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
        assert_eq!(invoice.total.to_string(), "0.02", "the rounded exact sum would be 0.01");
    }
}
