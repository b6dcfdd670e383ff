//! Flat prices: one for each meter, without tiers and free units.
//!
//! The invariant: as a plan they charge as any other plan does, so there is one way from usage to money.

use super::{
    charge::{Charge, Model},
    currency::{Currency, UnknownCurrency},
    decimal::{Decimal, NotADecimal},
    plan::{Plan, PlanVersion},
    quantity::Unit,
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

impl FlatPrices {
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
}

#[cfg(test)]
mod tests {
    use epoch::Timestamp;

    use super::FlatPrices;
    use crate::domain::{
        rating::{Adjustments, Metered, Term, rate},
        span::Span,
    };

    #[test]
    fn as_a_plan_the_total_is_the_sum_of_rounded_lines() {
        let prices = FlatPrices {
            currency: "EUR".parse().unwrap(),
            gb_hour: "0.005".parse().unwrap(),
            second: "0.005".parse().unwrap(),
        };
        let span = Span::new(Timestamp::from_millis(0), Timestamp::from_millis(1));
        let usage =
            [(Term { span, plan: prices.plan().into() }, Metered { byte_ms: 3_600_000_000_000_000, run_ms: 1_000 })];
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
