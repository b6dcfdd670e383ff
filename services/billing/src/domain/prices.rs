//! What usage costs at flat prices.
//!
//! The invariant: a line is its exact quantity at its price, rounded once; the total is the sum of what the lines show.

use super::{
    charge::{Charge, Model},
    currency::{Currency, UnknownCurrency},
    decimal::{Decimal, NotADecimal},
    money::Amount,
    plan::{Plan, PlanVersion},
    quantity::{Quantity, Unit},
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

/// One meter's cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What was metered: `storage` or `compute`.
    pub meter: &'static str,
    /// How much, and in which unit.
    pub quantity: Quantity,
    /// The price of one unit.
    pub unit_price: Decimal,
    /// What it costs, rounded.
    pub amount: Amount,
}

/// What usage costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Costs {
    /// A line for each meter.
    pub lines: Vec<Line>,
    /// The sum of the lines.
    pub total: Amount,
}

impl FlatPrices {
    /// What this much storage and compute costs.
    #[must_use]
    pub fn costs(&self, byte_ms: i128, run_ms: i128) -> Costs {
        let storage = self.line("storage", Quantity { metered: byte_ms, unit: Unit::GbHour }, &self.gb_hour);
        let compute = self.line("compute", Quantity { metered: run_ms, unit: Unit::Second }, &self.second);
        let lines = vec![storage, compute];
        let total = lines.iter().fold(Amount::zero(self.currency), |total, line| total.plus(&line.amount));
        Costs { lines, total }
    }

    /// The same prices as a plan: what is charged when an account has none.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let flat = |unit, unit_price: &Decimal| Charge {
            unit,
            model: Model::Flat { free: Decimal::zero(), unit_price: unit_price.clone() },
        };
        let charges = [flat(Unit::GbHour, &self.gb_hour), flat(Unit::Second, &self.second)];
        let charges = charges.into_iter().map(|charge| (charge.meter(), charge)).collect();
        let key = PlanVersion { plan: "standard".to_owned(), version: 1 };
        Plan::new(key, self.currency, charges)
    }

    fn line(&self, meter: &'static str, quantity: Quantity, unit_price: &Decimal) -> Line {
        let amount = Amount::of(quantity, unit_price, self.currency);
        Line { meter, quantity, unit_price: unit_price.clone(), amount }
    }
}

#[cfg(test)]
mod tests {
    use super::FlatPrices;

    #[test]
    fn the_total_is_the_sum_of_rounded_lines() {
        let prices = FlatPrices {
            currency: "EUR".parse().unwrap(),
            gb_hour: "0.005".parse().unwrap(),
            second: "0.005".parse().unwrap(),
        };
        let costs = prices.costs(3_600_000_000_000_000, 1_000);
        let lines: Vec<_> = costs
            .lines
            .iter()
            .map(|line| (line.meter, line.quantity.unit.symbol(), line.quantity.to_string(), line.amount.to_string()))
            .collect();
        let line = |meter, unit| (meter, unit, "1".to_owned(), "0.01".to_owned());
        assert_eq!(lines, [line("storage", "GB.h"), line("compute", "s")]);
        assert_eq!(costs.total.to_string(), "0.02", "not the rounded sum, which is 0.01");
    }
}
