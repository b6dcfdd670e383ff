//! A price as quantities at single prices.
//!
//! The problem: who reads costs row by row wants each row to be a quantity times one price, and a day's usage may lie in several tiers,
//! be partly free, or begin a package.
//!
//! The invariant: the pieces between two totals sum to what the charge says is between them, and each is its quantity times its price.

use std::collections::BTreeMap;

use crate::{
    money::{decimal::Decimal, exact::Exact},
    pricing::{
        meter::Quantity,
        price_model::{Charge, Model, Tier},
    },
};

/// What is counted in a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counted {
    /// Units that cost nothing since they come first.
    Free,
    /// Units.
    Units,
    /// Packages that were begun.
    Packages,
    /// What is due once.
    Fee,
}

/// So much at one price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Which tier, from 0.
    pub tier: usize,
    /// Of what.
    pub counted: Counted,
    /// How much of it.
    pub quantity: Exact,
    /// What one costs.
    pub unit_price: Decimal,
    /// The quantity times the price.
    pub amount: Exact,
}

type Pieces = BTreeMap<(usize, Counted), (Exact, Decimal)>;

/// What there is between two totals, piece by piece.
#[must_use]
pub fn pieces_between(charge: &Charge, before: i128, after: i128) -> Vec<Piece> {
    let mut pieces = pieces(charge, after);
    for (key, (quantity, price)) in self::pieces(charge, before) {
        let known = pieces.entry(key).or_insert_with(|| (Exact::zero(), price));
        known.0 = known.0.minus(&quantity);
    }
    let piece = |((tier, counted), (quantity, unit_price)): ((usize, Counted), (Exact, Decimal))| {
        let amount = quantity.times(&(&unit_price).into());
        Piece { tier, counted, quantity, unit_price, amount }
    };
    pieces.into_iter().map(piece).filter(|piece| !piece.quantity.is_zero()).collect()
}

fn pieces(charge: &Charge, metered: i128) -> Pieces {
    let quantity = Exact::from(Quantity { metered, unit: charge.unit });
    let mut pieces = Pieces::new();
    if !quantity.is_positive() {
        return pieces;
    }
    match &charge.model {
        Model::Graduated(tiers) | Model::Volume(tiers) => {
            for part in charge.parts(metered) {
                tier_of(&mut pieces, tiers, part.tier, part.quantity);
            }
        }
        Model::Package { free, size, price } => {
            let packages = quantity.minus(&free.into()).portions(&size.into());
            pieces.insert((0, Counted::Packages), (packages, price.clone()));
        }
        Model::Flat { free, unit_price } => {
            let paid = quantity.minus(&free.into()).max(Exact::zero());
            pieces.insert((0, Counted::Free), (quantity.minus(&paid), Decimal::zero()));
            pieces.insert((0, Counted::Units), (paid, unit_price.clone()));
        }
    }
    pieces
}

fn tier_of(pieces: &mut Pieces, tiers: &[Tier], index: usize, quantity: Exact) {
    let Some(tier) = tiers.get(index) else { return };
    pieces.insert((index, Counted::Units), (quantity, tier.unit_price.clone()));
    if !Exact::from(&tier.flat_fee).is_zero() {
        pieces.insert((index, Counted::Fee), (Exact::of_digits(1.into(), 0), tier.flat_fee.clone()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::{Counted, pieces_between};
    use crate::{
        money::exact::Exact,
        pricing::{
            meter::Unit,
            price_model::{Charge, Model, Tier},
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
            0 => Model::Graduated(tiers),
            1 => Model::Volume(tiers),
            2 => Model::Package { free: 7_u32.into(), size: 11_u32.into(), price: 3_u32.into() },
            _ => Model::Flat { free: 7_u32.into(), unit_price: 3_u32.into() },
        };
        Charge { unit: Unit::Second, model }
    }

    #[test]
    fn a_day_is_told_by_what_it_costs() {
        let told = |charge: &Charge, before, after| {
            let pieces = pieces_between(charge, before, after);
            let told =
                |piece: &super::Piece| (piece.tier, piece.counted, piece.quantity.cut(3), piece.unit_price.to_string());
            pieces.iter().map(told).collect::<Vec<_>>()
        };
        let piece = |tier, counted, quantity: &str, price: &str| (tier, counted, quantity.to_owned(), price.to_owned());
        let tiers = [(10, 5, 0), (10, 3, 2), (1, 1, 0)];
        assert_eq!(
            told(&charge(0, &tiers), 8_000, 12_500),
            [
                piece(0, Counted::Units, "2", "5"),
                piece(1, Counted::Units, "2.5", "3"),
                piece(1, Counted::Fee, "1", "2")
            ]
        );
        assert_eq!(
            told(&charge(3, &tiers), 5_000, 9_000),
            [piece(0, Counted::Free, "2", "0"), piece(0, Counted::Units, "2", "3")]
        );
        assert_eq!(told(&charge(2, &tiers), 7_000, 7_001), [piece(0, Counted::Packages, "1", "3")]);
        assert_eq!(told(&charge(2, &tiers), 7_001, 9_000), []);
    }

    proptest! {
        #[test]
        fn pieces_sum_to_what_is_charged(
            model in 0..4_u8, tiers in vec((1..50_u32, 0..20_u32, 0..9_u32), 1..5),
            before in 0..300_000_i128, after in 0..300_000_i128,
        ) {
            let charge = charge(model, &tiers);
            let pieces = pieces_between(&charge, before, after);
            let sum = pieces.iter().fold(Exact::zero(), |sum, piece| sum.plus(&piece.amount));
            prop_assert_eq!(sum, charge.price(after).minus(&charge.price(before)));
            for piece in pieces {
                prop_assert_eq!(piece.amount, piece.quantity.times(&(&piece.unit_price).into()));
            }
        }
    }
}
