//! Price items: a price as quantities at single unit prices, such as a cost export lists them.
//!
//! The usage of a day may fall in several tiers, be partly free, or start a package, but each exported row
//! must be one quantity at one price. Invariant: the items between two totals sum to the price difference of
//! the charge, and the amount of each item is its quantity times its price.

use std::collections::BTreeMap;

use crate::{
    money::{decimal::Decimal, exact::Exact},
    pricing::{
        meter::Quantity,
        price_model::{Charge, PriceModel, Tier},
    },
};

/// The kind of a price item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PriceItemKind {
    /// Free units, which come first.
    Free,
    /// Priced units.
    Units,
    /// Started packages.
    Packages,
    /// A fee due once.
    Fee,
}

/// A quantity at one price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceItem {
    /// The index of the tier.
    pub tier: usize,
    pub kind: PriceItemKind,
    pub quantity: Exact,
    /// The price of one.
    pub unit_price: Decimal,
    /// The quantity times the price.
    pub amount: Exact,
}

type ItemsByKind = BTreeMap<(usize, PriceItemKind), (Exact, Decimal)>;

/// Lists the price items between two totals.
#[must_use]
pub fn price_items_between(charge: &Charge, before: i128, after: i128) -> Vec<PriceItem> {
    let mut items = items(charge, after);
    for (key, (quantity, price)) in self::items(charge, before) {
        let known = items.entry(key).or_insert_with(|| (Exact::zero(), price));
        known.0 = known.0.minus(&quantity);
    }
    let item = |((tier, kind), (quantity, unit_price)): ((usize, PriceItemKind), (Exact, Decimal))| {
        let amount = quantity.times(&(&unit_price).into());
        PriceItem { tier, kind, quantity, unit_price, amount }
    };
    items.into_iter().map(item).filter(|item| !item.quantity.is_zero()).collect()
}

fn items(charge: &Charge, metered: i128) -> ItemsByKind {
    let quantity = Exact::from(Quantity { metered, unit: charge.unit });
    let mut items = ItemsByKind::new();
    if !quantity.is_positive() {
        return items;
    }
    match &charge.model {
        PriceModel::Graduated(tiers) | PriceModel::Volume(tiers) => {
            for part in charge.priced_tiers(metered) {
                insert_tier(&mut items, tiers, part.tier, part.quantity);
            }
        }
        PriceModel::Package { free, size, price } => {
            let packages = quantity.minus(&free.into()).portions(&size.into());
            items.insert((0, PriceItemKind::Packages), (packages, price.clone()));
        }
        PriceModel::Flat { free, unit_price } => {
            let paid = quantity.minus(&free.into()).max(Exact::zero());
            items.insert((0, PriceItemKind::Free), (quantity.minus(&paid), Decimal::zero()));
            items.insert((0, PriceItemKind::Units), (paid, unit_price.clone()));
        }
    }
    items
}

fn insert_tier(items: &mut ItemsByKind, tiers: &[Tier], index: usize, quantity: Exact) {
    let Some(tier) = tiers.get(index) else { return };
    items.insert((index, PriceItemKind::Units), (quantity, tier.unit_price.clone()));
    if !Exact::from(&tier.flat_fee).is_zero() {
        items.insert((index, PriceItemKind::Fee), (Exact::of_digits(1.into(), 0), tier.flat_fee.clone()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::{PriceItemKind, price_items_between};
    use crate::{
        money::exact::Exact,
        pricing::{
            meter::Unit,
            price_model::{Charge, PriceModel, Tier},
        },
    };

    fn charge(model: u8, tiers: &[(u32, u32, u32)]) -> Charge {
        let (mut bound, last) = (0, tiers.len() - 1);
        let tier = |(index, (step, unit_price, flat_fee)): (usize, &(u32, u32, u32))| {
            bound += step;
            let up_to = (index < last).then(|| bound.into());
            Tier { up_to, unit_price: (*unit_price).into(), flat_fee: (*flat_fee).into() }
        };
        let tiers = tiers.iter().enumerate().map(tier).collect();
        let model = match model {
            0 => PriceModel::Graduated(tiers),
            1 => PriceModel::Volume(tiers),
            2 => PriceModel::Package { free: 7_u32.into(), size: 11_u32.into(), price: 3_u32.into() },
            _ => PriceModel::Flat { free: 7_u32.into(), unit_price: 3_u32.into() },
        };
        Charge { unit: Unit::Second, model }
    }

    #[test]
    fn items_split_usage_by_tier_and_kind() {
        let items_of = |charge: &Charge, before, after| {
            let items = price_items_between(charge, before, after);
            let shown = |item: &super::PriceItem| {
                (item.tier, item.kind, item.quantity.truncated(3), item.unit_price.to_string())
            };
            items.iter().map(shown).collect::<Vec<_>>()
        };
        let item = |tier, kind, quantity: &str, price: &str| (tier, kind, quantity.to_owned(), price.to_owned());
        let tiers = [(10, 5, 0), (10, 3, 2), (1, 1, 0)];
        assert_eq!(
            items_of(&charge(0, &tiers), 8_000, 12_500),
            [
                item(0, PriceItemKind::Units, "2", "5"),
                item(1, PriceItemKind::Units, "2.5", "3"),
                item(1, PriceItemKind::Fee, "1", "2")
            ]
        );
        assert_eq!(
            items_of(&charge(3, &tiers), 5_000, 9_000),
            [item(0, PriceItemKind::Free, "2", "0"), item(0, PriceItemKind::Units, "2", "3")]
        );
        assert_eq!(items_of(&charge(2, &tiers), 7_000, 7_001), [item(0, PriceItemKind::Packages, "1", "3")]);
        assert_eq!(items_of(&charge(2, &tiers), 7_001, 9_000), []);
    }

    proptest! {
        #[test]
        fn items_sum_to_the_price_difference(
            model in 0..4_u8, tiers in vec((1..50_u32, 0..20_u32, 0..9_u32), 1..5),
            before in 0..300_000_i128, after in 0..300_000_i128,
        ) {
            let charge = charge(model, &tiers);
            let items = price_items_between(&charge, before, after);
            let sum = items.iter().fold(Exact::zero(), |sum, item| sum.plus(&item.amount));
            prop_assert_eq!(sum, charge.price(after).minus(&charge.price(before)));
            for item in items {
                prop_assert_eq!(item.amount, item.quantity.times(&(&item.unit_price).into()));
            }
        }
    }
}
