//! Exact fractions, such as a quantity in gigabyte-hours times a price before rounding.
//!
//! A gigabyte-hour is 3.6·10¹⁵ byte-milliseconds, so most quantities are repeating decimals, and rounding one
//! before pricing it shifts cents. Invariant: nothing is lost between metering and the single rounding of a
//! line. Denominators are unit sizes and powers of ten. A sum takes the larger denominator when it is a
//! multiple of the other, so denominators stay small.

use std::cmp::Ordering;

use bigdecimal::num_bigint::{BigInt, Sign};

use crate::money::decimal::Decimal;

/// A fraction with a positive denominator.
#[derive(Debug, Clone)]
pub struct Exact {
    numerator: BigInt,
    denominator: BigInt,
}

impl Exact {
    #[must_use]
    pub fn zero() -> Self {
        Self { numerator: BigInt::from(0), denominator: BigInt::from(1) }
    }

    /// Divides an integer by 10 to the power of `digits`.
    #[must_use]
    pub fn of_digits(number: BigInt, digits: u8) -> Self {
        Self { numerator: number, denominator: BigInt::from(10).pow(u32::from(digits)) }
    }

    /// Creates a fraction; `denominator` must be positive.
    #[must_use]
    pub fn ratio(numerator: i128, denominator: i64) -> Self {
        Self { numerator: BigInt::from(numerator), denominator: BigInt::from(denominator) }
    }

    /// Returns 1/100.
    #[must_use]
    pub fn hundredth() -> Self {
        Self::of_digits(BigInt::from(1), 2)
    }

    /// Returns whether the value is above zero.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.numerator > BigInt::from(0)
    }

    /// Returns whether the value is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.numerator == BigInt::from(0)
    }

    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let (left, right, denominator) = self.aligned(other);
        Self { numerator: left + right, denominator }
    }

    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let (left, right, denominator) = self.aligned(other);
        Self { numerator: left - right, denominator }
    }

    #[must_use]
    pub fn times(&self, other: &Self) -> Self {
        Self { numerator: &self.numerator * &other.numerator, denominator: &self.denominator * &other.denominator }
    }

    /// Returns the value × `part` / `whole`, or zero if `whole` is zero.
    #[must_use]
    pub fn part(&self, part: i128, whole: i128) -> Self {
        match whole {
            0 => Self::zero(),
            whole if whole < 0 => self.part(-part, -whole),
            whole => Self { numerator: &self.numerator * part, denominator: &self.denominator * whole },
        }
    }

    /// Returns the value × `part` / `whole`, or zero if `whole` is zero.
    #[must_use]
    pub fn in_proportion(&self, part: &Self, whole: &Self) -> Self {
        let numerator = &self.numerator * &part.numerator * &whole.denominator;
        let denominator = &self.denominator * &part.denominator * &whole.numerator;
        match denominator.sign() {
            Sign::NoSign => Self::zero(),
            Sign::Minus => Self { numerator: -numerator, denominator: -denominator },
            Sign::Plus => Self { numerator, denominator },
        }
    }

    /// Returns the number of started portions of a positive `size`; 0 unless the value is positive.
    #[must_use]
    pub fn portions(&self, size: &Self) -> Self {
        if !self.is_positive() {
            return Self::zero();
        }
        let (whole, portion, _) = self.aligned(size);
        let started: BigInt = (whole + &portion - 1) / portion;
        Self { numerator: started, denominator: BigInt::from(1) }
    }

    /// Rounds to `digits` decimals, half away from zero. The result counts units of 10 to the power of
    /// −`digits`.
    #[must_use]
    pub fn rounded(&self, digits: u8) -> BigInt {
        let numerator = &self.numerator * BigInt::from(10).pow(u32::from(digits));
        let quotient = &numerator / &self.denominator;
        let twice_the_remainder: BigInt = (numerator % &self.denominator) * 2;
        if twice_the_remainder >= self.denominator {
            return quotient + 1;
        }
        if -twice_the_remainder >= self.denominator {
            return quotient - 1;
        }
        quotient
    }

    /// Formats the value as a decimal with at most `digits` decimals, truncated, without trailing zeros.
    #[must_use]
    pub fn truncated(&self, digits: u8) -> String {
        let truncated = &self.numerator * BigInt::from(10).pow(u32::from(digits)) / &self.denominator;
        bigdecimal::BigDecimal::new(truncated, i64::from(digits)).normalized().to_plain_string()
    }

    fn aligned(&self, other: &Self) -> (BigInt, BigInt, BigInt) {
        let zero = BigInt::from(0);
        if &self.denominator % &other.denominator == zero {
            let factor = &self.denominator / &other.denominator;
            return (self.numerator.clone(), &other.numerator * factor, self.denominator.clone());
        }
        if &other.denominator % &self.denominator == zero {
            let factor = &other.denominator / &self.denominator;
            return (&self.numerator * factor, other.numerator.clone(), other.denominator.clone());
        }
        let (left, right) = (&self.numerator * &other.denominator, &other.numerator * &self.denominator);
        (left, right, &self.denominator * &other.denominator)
    }
}

impl From<&Decimal> for Exact {
    fn from(decimal: &Decimal) -> Self {
        let (number, digits) = decimal.parts();
        Self::of_digits(number, digits)
    }
}

impl PartialEq for Exact {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Exact {}

impl PartialOrd for Exact {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Exact {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.numerator * &other.denominator).cmp(&(&other.numerator * &self.denominator))
    }
}

#[cfg(test)]
mod tests {
    use bigdecimal::{BigDecimal, RoundingMode, num_bigint::BigInt};
    use proptest::prelude::*;

    use super::Exact;
    use crate::money::decimal::Decimal;

    fn exact(numerator: i64, denominator: i64) -> Exact {
        Exact { numerator: numerator.into(), denominator: denominator.into() }
    }

    #[test]
    fn started_portion_counts() {
        let decimal = |text: &str| Exact::from(&text.parse::<Decimal>().unwrap());
        let started = |amount: Exact, size| amount.portions(&decimal(size));
        assert_eq!(started(exact(7_207_250 - 600_000, 1_000), "3600"), exact(2, 1));
        assert_eq!(started(exact(7_200, 1), "3600"), exact(2, 1));
        assert_eq!(started(exact(7_200_001, 1_000), "3600"), exact(3, 1));
        assert_eq!(started(exact(1, 1_000_000), "0.5"), exact(1, 1));
        assert_eq!((started(exact(0, 1), "1"), started(exact(-5, 1), "1")), (Exact::zero(), Exact::zero()));
    }

    #[test]
    fn written_value_is_truncated_not_rounded() {
        let cases = [(2, 3, "0.666666666666"), (-2, 3, "-0.666666666666"), (5, 1, "5"), (0, 7, "0"), (1, 4, "0.25")];
        for (numerator, denominator, written) in cases {
            assert_eq!(exact(numerator, denominator).truncated(12), written);
        }
    }

    proptest! {
        #[test]
        fn rounding_matches_decimals(numerator in any::<i64>(), digits in 0..9_u32) {
            let expected = BigDecimal::new(BigInt::from(numerator), i64::from(digits));
            let expected = expected.with_scale_round(0, RoundingMode::HalfUp).as_bigint_and_exponent().0;
            prop_assert_eq!(exact(numerator, 10_i64.pow(digits)).rounded(0), expected);
        }

        #[test]
        fn rounding_error_is_at_most_half(numerator in any::<i64>(), denominator in 1..i64::MAX) {
            let rounded = exact(numerator, denominator).rounded(0);
            let (numerator, denominator) = (BigInt::from(numerator), BigInt::from(denominator));
            let off: BigInt = (rounded * &denominator - &numerator) * 2;
            prop_assert!(off <= denominator && -off <= denominator);
        }

        /// Includes negative values; the comparison detects a negative denominator.
        #[test]
        fn proportion_times_whole_equals_value_times_part(a in any::<i16>(), b in 1..i32::MAX, part in any::<i16>(), whole in any::<i16>()) {
            let number = |numerator: i16| exact(numerator.into(), b.into());
            let (of, part, whole) = (number(a), number(part), number(whole));
            let result = of.in_proportion(&part, &whole);
            match whole.is_zero() {
                true => prop_assert!(result.is_zero()),
                false => {
                    prop_assert_eq!(result.times(&whole), of.times(&part));
                    let below = [&of, &part, &whole].into_iter().filter(|number| **number < Exact::zero()).count() % 2 == 1;
                    prop_assert_eq!(result < Exact::zero(), below && !result.is_zero());
                }
            }
        }

        #[test]
        fn sum_reverts_difference(a in any::<i32>(), b in 1..i32::MAX, c in any::<i32>(), d in 1..i32::MAX) {
            let (left, right) = (exact(a.into(), b.into()), exact(c.into(), d.into()));
            prop_assert_eq!(left.plus(&right).minus(&right), left.clone());
            prop_assert_eq!(left.plus(&right), right.plus(&left));
            prop_assert_eq!(left.times(&right), right.times(&left));
        }
    }
}
