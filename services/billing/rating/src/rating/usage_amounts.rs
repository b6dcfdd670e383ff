//! Usage amounts by meter.

use std::collections::{BTreeMap, BTreeSet};

use crate::pricing::meter::Meter;

/// Metered amounts by meter, each in the base unit of its meter: byte-milliseconds of storage, milliseconds of compute.
///
/// A meter without usage has no entry, so that amounts are equal exactly when all meters are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UsageAmounts(BTreeMap<Meter, i128>);

impl UsageAmounts {
    /// Creates amounts of storage in byte-milliseconds and of compute in milliseconds.
    #[must_use]
    pub fn of(byte_ms: i128, run_ms: i128) -> Self {
        [(Meter::Storage, byte_ms), (Meter::Compute, run_ms)].into_iter().collect()
    }

    /// Returns the amount of a meter, 0 if it has no usage.
    #[must_use]
    pub fn get(&self, meter: Meter) -> i128 {
        self.0.get(&meter).copied().unwrap_or_default()
    }

    /// Lists the meters with usage and their amounts.
    pub fn iter(&self) -> impl Iterator<Item = (Meter, i128)> + '_ {
        self.0.iter().map(|(meter, amount)| (*meter, *amount))
    }

    /// Returns the sum, meter by meter.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.iter().chain(other.iter()).collect()
    }

    /// Returns the difference, meter by meter.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.iter().chain(other.iter().map(|(meter, amount)| (meter, -amount))).collect()
    }

    /// Applies a fallible function to the amounts of both operands, for each meter with usage in one of them.
    ///
    /// Returns `None` if the function does.
    pub fn try_zip(&self, other: &Self, combine: impl Fn(i128, i128) -> Option<i128>) -> Option<Self> {
        let meters: BTreeSet<Meter> = self.0.keys().chain(other.0.keys()).copied().collect();
        let combined = meters.into_iter().map(|meter| Some((meter, combine(self.get(meter), other.get(meter))?)));
        combined.collect()
    }
}

/// Amounts of the same meter are added.
impl FromIterator<(Meter, i128)> for UsageAmounts {
    fn from_iter<I: IntoIterator<Item = (Meter, i128)>>(amounts: I) -> Self {
        let mut sums: BTreeMap<Meter, i128> = BTreeMap::new();
        for (meter, amount) in amounts {
            *sums.entry(meter).or_default() += amount;
        }
        sums.retain(|_, amount| *amount != 0);
        Self(sums)
    }
}

#[cfg(test)]
mod tests {
    use super::UsageAmounts;
    use crate::pricing::meter::Meter;

    #[test]
    fn amounts_are_added_and_compared_by_meter() {
        let storage = UsageAmounts::of(5, 0);
        let both = storage.plus(&UsageAmounts::of(2, 7));
        assert_eq!((both.get(Meter::Storage), both.get(Meter::Compute)), (7, 7));
        assert_eq!(storage.iter().collect::<Vec<_>>(), [(Meter::Storage, 5)]);
        assert_eq!(both.minus(&both), UsageAmounts::default(), "zero equals no usage");
        assert_eq!(both.try_zip(&storage, i128::checked_sub), Some(UsageAmounts::of(2, 7)));
        assert_eq!(UsageAmounts::of(i128::MAX, 1).try_zip(&storage, i128::checked_add), None);
    }
}
