//! Plans: what each meter costs, in one currency.
//!
//! The problem: a plan is written by people, and a mistake in it costs money. The invariant: a [`Plan`] can price any quantity:
//! its tiers ascend and the last one has no bound, its packages hold something, its units fit their meters, and no meter is
//! charged twice.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    money::{currency::Currency, decimal::Decimal},
    pricing::{meter::Meter, price_model::Charge},
    sharing::rule::Rule,
};

/// Which version of which plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlanVersion {
    /// The plan.
    pub plan: String,
    /// Its version.
    pub version: u32,
}

/// A version of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Which.
    pub key: PlanVersion,
    /// What all prices are in.
    pub currency: Currency,
    /// What is charged for.
    pub charges: BTreeMap<Meter, Charge>,
    /// Those charges that are a customer's own, whatever the plan says.
    pub own: BTreeSet<Meter>,
    /// What the plan charges for these, which is not what the customer pays.
    pub replaced: BTreeMap<Meter, Charge>,
    /// How files are shared by the jobs that use them.
    pub split: Rule,
    /// What a month costs at least, before tax.
    pub minimum: Decimal,
    /// Hundredths that are put on as tax.
    pub tax_percent: Decimal,
}

impl Plan {
    /// A plan with these charges and nothing else.
    #[must_use]
    pub fn new(key: PlanVersion, currency: Currency, charges: BTreeMap<Meter, Charge>) -> Self {
        let (minimum, tax_percent) = (Decimal::zero(), Decimal::zero());
        let (own, replaced) = (BTreeSet::new(), BTreeMap::new());
        Self { key, currency, charges, own, replaced, split: Rule::default(), minimum, tax_percent }
    }

    /// The plan with a customer's own price for a meter.
    #[must_use]
    pub fn with_own(mut self, charge: Charge) -> Self {
        let meter = charge.meter();
        if let (Some(listed), true) = (self.charges.insert(meter, charge), self.own.insert(meter)) {
            self.replaced.insert(meter, listed);
        }
        self
    }
}
