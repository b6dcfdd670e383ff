//! Meters, units, and quantities in the unit they are priced in.
//!
//! A gigabyte-hour is 3.6·10¹⁵ byte-milliseconds, so most quantities are repeating decimals. A quantity stays
//! the metered integer and is truncated only when it is written.

use std::fmt;

use crate::money::exact::Exact;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Meter {
    /// Run time of jobs, in milliseconds.
    Compute,
    /// Storage over time, in byte-milliseconds.
    Storage,
}

impl Meter {
    /// Returns the name in JSON and in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Meter::Compute => "compute",
            Meter::Storage => "storage",
        }
    }
}

/// The unit that a meter is priced in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Gigabyte-hours (10⁹ bytes) of storage, metered in byte-milliseconds.
    GbHour,
    /// Gibibyte-hours (2³⁰ bytes) of storage, metered in byte-milliseconds.
    GibHour,
    /// Seconds of compute, metered in milliseconds.
    Second,
}

impl Unit {
    /// Returns the meter that is priced in this unit.
    #[must_use]
    pub const fn meter(self) -> Meter {
        match self {
            Unit::GbHour | Unit::GibHour => Meter::Storage,
            Unit::Second => Meter::Compute,
        }
    }

    /// Returns the symbol in JSON and in events.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Unit::GbHour => "GB.h",
            Unit::GibHour => "GiB.h",
            Unit::Second => "s",
        }
    }

    /// Returns how much of the metered amount makes one unit.
    #[must_use]
    pub const fn size(self) -> i64 {
        match self {
            Unit::GbHour => 1_000_000_000 * 3_600_000,
            Unit::GibHour => (1 << 30) * 3_600_000,
            Unit::Second => 1_000,
        }
    }
}

/// An exact quantity, written as a decimal with at most 12 decimals, truncated, without trailing zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantity {
    /// The metered amount in byte-milliseconds or milliseconds.
    pub metered: i128,
    /// The unit it is priced in.
    pub unit: Unit,
}

impl From<Quantity> for Exact {
    /// Converts the quantity to its unit.
    fn from(quantity: Quantity) -> Self {
        Self::ratio(quantity.metered, quantity.unit.size())
    }
}

const DIGITS: usize = 12;

impl fmt::Display for Quantity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = u128::from(self.unit.size().unsigned_abs());
        let metered = self.metered.unsigned_abs();
        let truncated = metered % size * 10_u128.pow(DIGITS as u32) / size;
        let fraction = format!("{truncated:0DIGITS$}");
        let fraction = fraction.trim_end_matches('0');
        let whole = metered / size;
        let minus = if self.metered < 0 && (whole > 0 || truncated > 0) { "-" } else { "" };
        match fraction {
            "" => write!(formatter, "{minus}{whole}"),
            fraction => write!(formatter, "{minus}{whole}.{fraction}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use bigdecimal::BigDecimal;
    use proptest::prelude::*;

    use super::{Quantity, Unit};

    fn written(metered: i128, unit: Unit) -> String {
        Quantity { metered, unit }.to_string()
    }

    #[test]
    fn quantity_is_truncated_to_twelve_decimals() {
        let cases = [
            (0, "0"),
            (3_600_000_000_000_000, "1"),
            (1_800_000_000_000_000, "0.5"),
            (3_599, "0"),
            (-3_599, "0"),
            (3_600, "0.000000000001"),
            (7_199, "0.000000000001"),
            (-7_200, "-0.000000000002"),
            (2_400_000_000_000_000, "0.666666666666"),
            (-2_400_000_000_000_000, "-0.666666666666"),
            (172_620_005_663_088_380, "47.95000157308"),
        ];
        for (metered, expected) in cases {
            assert_eq!(written(metered, Unit::GbHour), expected, "{metered}");
        }
        assert_eq!(written(3_865_470_566_400_000, Unit::GibHour), "1");
        assert_eq!(written(3_600_000_000_000_000, Unit::GibHour), "0.931322574615");
        assert_eq!(written(7_207_250, Unit::Second), "7207.25");
        assert_eq!(written(-1, Unit::Second), "-0.001");
        assert_eq!(written(i128::MIN, Unit::Second), "-170141183460469231731687303715884105.728");
        assert_eq!(Unit::GbHour.size(), 3_600_000_000_000_000);
    }

    proptest! {
        #[test]
        fn written_quantity_is_within_the_last_decimal(metered in any::<i64>(), hours in any::<bool>()) {
            let unit = if hours { Unit::GbHour } else { Unit::Second };
            let metered = i128::from(metered) * 997;
            let text = written(metered, unit);
            let back = BigDecimal::from_str(&text).unwrap();
            // The exact quantity is at or beyond the written value, seen from zero, by less than one unit of
            // the last digit.
            let rest = BigDecimal::from(metered) - &back * BigDecimal::from(unit.size());
            let last_digit = BigDecimal::new(unit.size().into(), 12);
            prop_assert!(rest.abs() < last_digit);
            prop_assert!(rest == 0 || (rest < 0) == (metered < 0));
            prop_assert!(!text.contains('.') || !text.ends_with('0'));
        }
    }
}
