//! What a meter costs: the models of prices.
//!
//! The invariant: a price is exact and a function of the whole quantity of a period alone, so the price of more than was priced
//! before is a difference of two prices. No quantity costs nothing, whatever the model. A bound belongs to the tier below it.
//!
//! A quantity below 0, which only odd events make, is not priced; it is flagged where it is metered.

use std::collections::BTreeMap;

use crate::{
    money::{decimal::Decimal, exact::Exact},
    pricing::meter::{Meter, Quantity, Unit},
};

/// What one meter costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// The unit that prices and bounds are in.
    pub unit: Unit,
    /// How quantities become prices.
    pub model: Model,
}

/// How a quantity becomes a price. Free units come first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Model {
    /// Each unit at the price of the tier it lies in.
    Graduated(Vec<Tier>),
    /// All units at the price of the tier they reach.
    Volume(Vec<Tier>),
    /// Packages; one that is begun counts.
    Package {
        /// How much is free.
        free: Decimal,
        /// How much is in a package; not 0.
        size: Decimal,
        /// The price of a package.
        price: Decimal,
    },
    /// Each unit at the same price.
    Flat {
        /// How much is free.
        free: Decimal,
        /// The price of a unit.
        unit_price: Decimal,
    },
}

/// A range of quantities. Tiers ascend; the last one has no bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// The last quantity in it.
    pub up_to: Option<Decimal>,
    /// The price of a unit.
    pub unit_price: Decimal,
    /// Due once when usage enters the tier (graduated) or ends in it (volume).
    pub flat_fee: Decimal,
}

/// What a tier takes of a quantity, and what that costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Which tier, from 0; packages and flat prices have one.
    pub tier: usize,
    /// How much of the quantity lies in it.
    pub quantity: Exact,
    /// What it costs.
    pub amount: Exact,
}

impl Charge {
    /// What is metered.
    #[must_use]
    pub fn meter(&self) -> Meter {
        self.unit.meter()
    }

    /// What a quantity, metered in byte-milliseconds or milliseconds, costs, tier by tier.
    #[must_use]
    pub fn parts(&self, metered: i128) -> Vec<Part> {
        let quantity = Exact::from(Quantity { metered, unit: self.unit });
        if !quantity.is_positive() {
            return Vec::new();
        }
        match &self.model {
            Model::Graduated(tiers) => graduated(tiers, &quantity),
            Model::Volume(tiers) => volume(tiers, quantity),
            Model::Package { free, size, price } => {
                let packages = quantity.minus(&free.into()).portions(&size.into());
                vec![Part { tier: 0, quantity, amount: packages.times(&price.into()) }]
            }
            Model::Flat { free, unit_price } => {
                let paid = quantity.minus(&free.into()).max(Exact::zero());
                vec![Part { tier: 0, quantity, amount: paid.times(&unit_price.into()) }]
            }
        }
    }

    /// What the quantity between two totals costs, tier by tier: the price of `after` without the price of `before`.
    #[must_use]
    pub fn parts_between(&self, before: i128, after: i128) -> Vec<Part> {
        let mut tiers: BTreeMap<usize, (Exact, Exact)> = BTreeMap::new();
        for part in self.parts(after) {
            tiers.insert(part.tier, (part.quantity, part.amount));
        }
        for part in self.parts(before) {
            let tier = tiers.entry(part.tier).or_insert_with(|| (Exact::zero(), Exact::zero()));
            *tier = (tier.0.minus(&part.quantity), tier.1.minus(&part.amount));
        }
        let parts = tiers.into_iter().map(|(tier, (quantity, amount))| Part { tier, quantity, amount });
        parts.filter(|part| !part.quantity.is_zero() || !part.amount.is_zero()).collect()
    }

    /// What a quantity costs, exactly.
    #[must_use]
    pub fn price(&self, metered: i128) -> Exact {
        self.parts(metered).iter().fold(Exact::zero(), |sum, part| sum.plus(&part.amount))
    }
}

fn graduated(tiers: &[Tier], quantity: &Exact) -> Vec<Part> {
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
        parts.push(Part { tier: index, quantity: within, amount });
        reached = end;
    }
    parts
}

fn volume(tiers: &[Tier], quantity: Exact) -> Vec<Part> {
    let reached = tiers.iter().position(|tier| tier.up_to.as_ref().is_none_or(|up_to| quantity <= up_to.into()));
    // Tiers have no end, so one is always reached.
    let Some((index, tier)) = reached.and_then(|index| Some((index, tiers.get(index)?))) else { return Vec::new() };
    let amount = quantity.times(&(&tier.unit_price).into()).plus(&(&tier.flat_fee).into());
    vec![Part { tier: index, quantity, amount }]
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::{Charge, Model, Tier};
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

    /// The price of so many milliseconds.
    fn price(model: Model, millis: i128) -> String {
        Charge { unit: Unit::Second, model }.price(millis).cut(12)
    }

    #[test]
    fn graduated_prices_each_unit_in_its_tier() {
        let cases = [(0, "0"), (10_000, "10"), (10_001, "13.0005"), (20_000, "18"), (30_000, "19"), (-5, "0")];
        for (millis, expected) in cases {
            assert_eq!(price(Model::Graduated(tiers()), millis), expected, "{millis}");
        }
    }

    #[test]
    fn volume_prices_all_units_at_the_tier_they_reach() {
        let cases = [(0, "0"), (10_000, "10"), (10_001, "8.0005"), (20_000, "13"), (20_001, "2.0001")];
        for (millis, expected) in cases {
            assert_eq!(price(Model::Volume(tiers()), millis), expected, "{millis}");
        }
    }

    #[test]
    fn packages_count_once_begun_and_free_units_come_first() {
        let package = || Model::Package { free: decimal("600"), size: decimal("3600"), price: decimal("1.25") };
        for (seconds, expected) in [(600, "0"), (601, "1.25"), (4_200, "1.25"), (4_201, "2.5"), (0, "0")] {
            assert_eq!(price(package(), seconds * 1_000), expected, "{seconds}");
        }
        assert_eq!(price(package(), 600_001), "1.25", "a millisecond begins a package");
        let flat = || Model::Flat { free: decimal("1.5"), unit_price: decimal("2") };
        assert_eq!((price(flat(), 1_500), price(flat(), 2_000)), ("0".to_owned(), "1".to_owned()));
    }

    #[test]
    fn a_difference_is_told_tier_by_tier() {
        let charge = |model| Charge { unit: Unit::Second, model };
        let told = |charge: &Charge, before, after| {
            let parts = charge.parts_between(before, after);
            parts.iter().map(|part| (part.tier, part.quantity.cut(3), part.amount.cut(3))).collect::<Vec<_>>()
        };
        let part = |tier, quantity: &str, amount: &str| (tier, quantity.to_owned(), amount.to_owned());
        let graduated = charge(Model::Graduated(tiers()));
        assert_eq!(told(&graduated, 8_000, 22_000), [part(0, "2", "2"), part(1, "10", "8"), part(2, "2", "0.2")]);
        // The whole volume moves to the cheaper tier, so that more costs less.
        let volume = charge(Model::Volume(tiers()));
        assert_eq!(told(&volume, 15_000, 25_000), [part(1, "-15", "-10.5"), part(2, "25", "2.5")]);
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

    /// Each millisecond on its own, in the tier it lies in.
    fn naive(tiers: &[Tier], millis: i128) -> Exact {
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
            let charge = Charge { unit: Unit::Second, model: Model::Graduated(tiers) };
            prop_assert!(charge.price(one.min(other)) <= charge.price(one.max(other)));
        }

        #[test]
        fn differences_add_up_in_every_model(tiers in any_tiers(), cuts in vec(0..300_000_i128, 3), model in 0..4) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let model = match model {
                0 => Model::Graduated(tiers),
                1 => Model::Volume(tiers),
                2 => Model::Package { free: 7_u32.into(), size: 11_u32.into(), price: 3_u32.into() },
                _ => Model::Flat { free: 7_u32.into(), unit_price: 3_u32.into() },
            };
            let charge = Charge { unit: Unit::Second, model };
            let between = |before, after| {
                charge.parts_between(before, after).iter().fold(Exact::zero(), |sum, part| sum.plus(&part.amount))
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
            let charge = Charge { unit: Unit::Second, model: Model::Graduated(tiers.clone()) };
            prop_assert_eq!(charge.price(millis), naive(&tiers, millis));
        }
    }
}
