//! Price models: graduated, volume, package and flat.
//!
//! Invariant: a price is exact and a function of the total quantity of the period alone. So the price of
//! additional usage is the difference of two prices. A quantity of 0 costs nothing in every model. The upper
//! bound of a tier is inclusive.
//!
//! Only anomalies produce a negative quantity. It is not priced; metering reports the anomaly.
//!
//! Example: with tiers up to 10 at 1.00 and beyond at 0.50, 12 units cost 11.00 graduated and 6.00 by volume.

use std::collections::BTreeMap;

use crate::{
    money::{decimal::Decimal, exact::Exact},
    pricing::meter::{Meter, Quantity, Unit},
};

/// The charge of one meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// The unit of prices and bounds.
    pub unit: Unit,
    pub model: PriceModel,
}

/// The model that prices a quantity. Free units come first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PriceModel {
    /// Each unit costs the price of the tier it falls in.
    Graduated(Vec<Tier>),
    /// All units cost the price of the tier that the total reaches.
    Volume(Vec<Tier>),
    /// Packages; a started package costs its full price.
    Package {
        /// Free units.
        free: Decimal,
        /// Units in a package; not 0.
        size: Decimal,
        /// The price of one package.
        price: Decimal,
    },
    /// Each unit costs the same price.
    Flat {
        /// Free units.
        free: Decimal,
        /// The price of one unit.
        unit_price: Decimal,
    },
}

/// A range of quantities. Tiers ascend, and the last one has no bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// The last quantity in the tier.
    pub up_to: Option<Decimal>,
    /// The price of one unit.
    pub unit_price: Decimal,
    /// A fee due once when usage enters the tier (graduated) or ends in it (volume).
    pub flat_fee: Decimal,
}

/// The quantity in a tier and its price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PricedTier {
    /// The index of the tier; 0 for packages and flat prices.
    pub tier: usize,
    /// The part of the quantity that falls in the tier.
    pub quantity: Exact,
    /// The price of that part.
    pub amount: Exact,
}

impl Charge {
    /// Returns the meter of the charge.
    #[must_use]
    pub fn meter(&self) -> Meter {
        self.unit.meter()
    }

    /// Prices a metered amount, in byte-milliseconds or milliseconds, tier by tier.
    #[must_use]
    pub fn priced_tiers(&self, metered: i128) -> Vec<PricedTier> {
        let quantity = Exact::from(Quantity { metered, unit: self.unit });
        if !quantity.is_positive() {
            return Vec::new();
        }
        match &self.model {
            PriceModel::Graduated(tiers) => graduated(tiers, &quantity),
            PriceModel::Volume(tiers) => volume(tiers, quantity),
            PriceModel::Package { free, size, price } => {
                let packages = quantity.minus(&free.into()).portions(&size.into());
                vec![PricedTier { tier: 0, quantity, amount: packages.times(&price.into()) }]
            }
            PriceModel::Flat { free, unit_price } => {
                let paid = quantity.minus(&free.into()).max(Exact::zero());
                vec![PricedTier { tier: 0, quantity, amount: paid.times(&unit_price.into()) }]
            }
        }
    }

    /// Prices the usage between two totals, tier by tier: the price of `after` minus the price of `before`.
    #[must_use]
    pub fn priced_tiers_between(&self, before: i128, after: i128) -> Vec<PricedTier> {
        let mut tiers: BTreeMap<usize, (Exact, Exact)> = BTreeMap::new();
        for tier in self.priced_tiers(after) {
            tiers.insert(tier.tier, (tier.quantity, tier.amount));
        }
        for part in self.priced_tiers(before) {
            let tier = tiers.entry(part.tier).or_insert_with(|| (Exact::zero(), Exact::zero()));
            *tier = (tier.0.minus(&part.quantity), tier.1.minus(&part.amount));
        }
        let parts = tiers.into_iter().map(|(tier, (quantity, amount))| PricedTier { tier, quantity, amount });
        parts.filter(|part| !part.quantity.is_zero() || !part.amount.is_zero()).collect()
    }

    /// Returns the exact price of a metered amount.
    #[must_use]
    pub fn price(&self, metered: i128) -> Exact {
        self.priced_tiers(metered).iter().fold(Exact::zero(), |sum, part| sum.plus(&part.amount))
    }
}

fn graduated(tiers: &[Tier], quantity: &Exact) -> Vec<PricedTier> {
    let mut parts = Vec::new();
    let mut reached = Exact::zero();
    for (index, tier) in tiers.iter().enumerate() {
        if *quantity <= reached {
            break;
        }
        let end = match &tier.up_to {
            Some(up_to) => Exact::from(up_to).min(quantity.clone()),
            None => quantity.clone(),
        };
        let within = end.minus(&reached);
        let amount = within.times(&(&tier.unit_price).into()).plus(&(&tier.flat_fee).into());
        parts.push(PricedTier { tier: index, quantity: within, amount });
        reached = end;
    }
    parts
}

fn volume(tiers: &[Tier], quantity: Exact) -> Vec<PricedTier> {
    let reached = tiers.iter().position(|tier| tier.up_to.as_ref().is_none_or(|up_to| quantity <= up_to.into()));
    // The last tier has no bound, so one is always reached.
    let Some((index, tier)) = reached.and_then(|index| Some((index, tiers.get(index)?))) else { return Vec::new() };
    let amount = quantity.times(&(&tier.unit_price).into()).plus(&(&tier.flat_fee).into());
    vec![PricedTier { tier: index, quantity, amount }]
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::{Charge, PriceModel, Tier};
    use crate::{
        money::{decimal::Decimal, exact::Exact},
        pricing::meter::Unit,
    };

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn tier(up_to: Option<&str>, unit_price: &str, flat_fee: &str) -> Tier {
        Tier { up_to: up_to.map(decimal), unit_price: decimal(unit_price), flat_fee: decimal(flat_fee) }
    }

    fn tiers() -> Vec<Tier> {
        vec![tier(Some("10"), "1", "0"), tier(Some("20"), "0.5", "3"), tier(None, "0.1", "0")]
    }

    /// Returns the price of an amount in milliseconds.
    fn price(model: PriceModel, millis: i128) -> String {
        Charge { unit: Unit::Second, model }.price(millis).truncated(12)
    }

    #[test]
    fn graduated_prices_each_unit_in_its_tier() {
        let cases = [(0, "0"), (10_000, "10"), (10_001, "13.0005"), (20_000, "18"), (30_000, "19"), (-5, "0")];
        for (millis, expected) in cases {
            assert_eq!(price(PriceModel::Graduated(tiers()), millis), expected, "{millis}");
        }
    }

    #[test]
    fn volume_prices_all_units_at_the_tier_reached() {
        let cases = [(0, "0"), (10_000, "10"), (10_001, "8.0005"), (20_000, "13"), (20_001, "2.0001")];
        for (millis, expected) in cases {
            assert_eq!(price(PriceModel::Volume(tiers()), millis), expected, "{millis}");
        }
    }

    #[test]
    fn started_package_costs_in_full_after_free_units() {
        let package = || PriceModel::Package { free: decimal("600"), size: decimal("3600"), price: decimal("1.25") };
        for (seconds, expected) in [(600, "0"), (601, "1.25"), (4_200, "1.25"), (4_201, "2.5"), (0, "0")] {
            assert_eq!(price(package(), seconds * 1_000), expected, "{seconds}");
        }
        assert_eq!(price(package(), 600_001), "1.25", "a millisecond starts a package");
        let flat = || PriceModel::Flat { free: decimal("1.5"), unit_price: decimal("2") };
        assert_eq!((price(flat(), 1_500), price(flat(), 2_000)), ("0".to_owned(), "1".to_owned()));
    }

    #[test]
    fn difference_is_priced_tier_by_tier() {
        let charge = |model| Charge { unit: Unit::Second, model };
        let tiers_between = |charge: &Charge, before, after| {
            let parts = charge.priced_tiers_between(before, after);
            parts
                .iter()
                .map(|part| (part.tier, part.quantity.truncated(3), part.amount.truncated(3)))
                .collect::<Vec<_>>()
        };
        let priced = |tier, quantity: &str, amount: &str| (tier, quantity.to_owned(), amount.to_owned());
        let graduated = charge(PriceModel::Graduated(tiers()));
        assert_eq!(
            tiers_between(&graduated, 8_000, 22_000),
            [priced(0, "2", "2"), priced(1, "10", "8"), priced(2, "2", "0.2")]
        );
        // All units move to the cheaper tier, so that more usage costs less.
        let volume = charge(PriceModel::Volume(tiers()));
        assert_eq!(tiers_between(&volume, 15_000, 25_000), [priced(1, "-15", "-10.5"), priced(2, "25", "2.5")]);
    }

    fn any_tiers() -> impl Strategy<Value = Vec<Tier>> {
        let steps = vec((1..50_u32, 0..20_u32, option::of(0..9_u32)), 1..5);
        steps.prop_map(|steps| {
            let (mut bound, last) = (0, steps.len() - 1);
            let tier = |(index, (step, unit_price, flat_fee)): (usize, (u32, u32, Option<u32>))| {
                bound += step;
                let up_to = (index < last).then(|| Decimal::from(bound));
                Tier { up_to, unit_price: unit_price.into(), flat_fee: flat_fee.unwrap_or(0).into() }
            };
            steps.into_iter().enumerate().map(tier).collect()
        })
    }

    /// Prices each millisecond separately, in the tier it falls in.
    fn price_by_millisecond(tiers: &[Tier], millis: i128) -> Exact {
        let mut sum = Exact::zero();
        let mut entered = None;
        for reached in 1..=millis {
            let seconds = Exact::of_digits(reached.into(), 3);
            let within = |tier: &Tier| tier.up_to.as_ref().is_none_or(|up_to| seconds <= up_to.into());
            let index = tiers.iter().position(within).unwrap();
            sum = sum.plus(&Exact::of_digits(1.into(), 3).times(&(&tiers[index].unit_price).into()));
            if entered != Some(index) {
                sum = sum.plus(&(&tiers[index].flat_fee).into());
                entered = Some(index);
            }
        }
        sum
    }

    proptest! {
        #[test]
        fn graduated_is_monotone(tiers in any_tiers(), one in 0..300_000_i128, other in 0..300_000_i128) {
            let charge = Charge { unit: Unit::Second, model: PriceModel::Graduated(tiers) };
            prop_assert!(charge.price(one.min(other)) <= charge.price(one.max(other)));
        }

        #[test]
        fn differences_add_up_in_every_model(tiers in any_tiers(), cuts in vec(0..300_000_i128, 3), model in 0..4) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let model = match model {
                0 => PriceModel::Graduated(tiers),
                1 => PriceModel::Volume(tiers),
                2 => PriceModel::Package { free: 7_u32.into(), size: 11_u32.into(), price: 3_u32.into() },
                _ => PriceModel::Flat { free: 7_u32.into(), unit_price: 3_u32.into() },
            };
            let charge = Charge { unit: Unit::Second, model };
            let between = |before, after| {
                charge.priced_tiers_between(before, after).iter().fold(Exact::zero(), |sum, part| sum.plus(&part.amount))
            };
            let (first, second) = (between(cuts[0], cuts[1]), between(cuts[1], cuts[2]));
            prop_assert_eq!(first.plus(&second), between(cuts[0], cuts[2]));
            prop_assert_eq!(charge.price(cuts[0]).plus(&between(cuts[0], cuts[2])), charge.price(cuts[2]));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn graduated_is_the_sum_of_its_units(tiers in any_tiers(), millis in 0..3_000_i128) {
            let charge = Charge { unit: Unit::Second, model: PriceModel::Graduated(tiers.clone()) };
            prop_assert_eq!(charge.price(millis), price_by_millisecond(&tiers, millis));
        }
    }
}
