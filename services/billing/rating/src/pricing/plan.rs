//! Plans: the price of each meter in one currency.
//!
//! People write plans, and a mistake costs money. Invariant: a [`Plan`] can price any quantity. Its tiers
//! ascend and the last one has no bound, its packages are not empty, its units fit their meters, and each
//! meter has at most one charge.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    money::{currency::Currency, decimal::Decimal},
    pricing::{meter::Meter, price_model::Charge},
    sharing::rule::SharingRule,
};

/// The key of a version of a plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlanVersion {
    pub plan: String,
    pub version: u32,
}

/// A version of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub key: PlanVersion,
    /// The currency of all prices.
    pub currency: Currency,
    /// The charge of each meter.
    pub charges: BTreeMap<Meter, Charge>,
    /// Meters with a price override of the account.
    pub overridden: BTreeSet<Meter>,
    /// The charges of the plan that price overrides replace: the list prices.
    pub list_charges: BTreeMap<Meter, Charge>,
    /// The rule by which jobs share files.
    pub split: SharingRule,
    /// The minimum charge of a month, before tax.
    pub minimum: Decimal,
    /// The tax in percent.
    pub tax_percent: Decimal,
}

impl Plan {
    /// Creates a plan with these charges and defaults for everything else.
    #[must_use]
    pub fn new(key: PlanVersion, currency: Currency, charges: BTreeMap<Meter, Charge>) -> Self {
        let (minimum, tax_percent) = (Decimal::zero(), Decimal::zero());
        let (overridden, list_charges) = (BTreeSet::new(), BTreeMap::new());
        Self { key, currency, charges, overridden, list_charges, split: SharingRule::default(), minimum, tax_percent }
    }

    /// Replaces the charge of a meter by a price override.
    #[must_use]
    pub fn with_override(mut self, charge: Charge) -> Self {
        let meter = charge.meter();
        if let (Some(listed), true) = (self.charges.insert(meter, charge), self.overridden.insert(meter)) {
            self.list_charges.insert(meter, listed);
        }
        self
    }
}
