//! Decimals from external input: prices, tier bounds, percentages and amounts.
//!
//! Most JSON parsers read a number as a float, and a price with forty digits is a mistake or an attack. So a
//! [`Decimal`] is exact, not negative, and has at most 20 digits before the point and 18 after it, which fits
//! a `decimal(38)`.

use std::{fmt, str::FromStr};

use bigdecimal::{BigDecimal, num_bigint::BigInt};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An exact decimal that is not negative.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal(BigDecimal);

/// Text that is not a valid decimal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a decimal: it needs 1 to 20 digits, optionally followed by a point and 1 to 18 digits")]
pub struct InvalidDecimal {
    text: String,
}

impl Decimal {
    const MAX_WHOLE_DIGITS: usize = 20;
    const MAX_DECIMALS: usize = 18;

    #[must_use]
    pub fn zero() -> Self {
        Self(BigDecimal::from(0))
    }

    /// Divides a non-negative integer by 10 to the power of `digits`.
    pub(crate) fn of_digits(number: BigInt, digits: u8) -> Self {
        Self(BigDecimal::new(number, i64::from(digits)).normalized())
    }

    /// Returns whether the decimal is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0 == 0
    }

    /// Returns all digits as an integer, and how many of them follow the point.
    #[must_use]
    pub fn parts(&self) -> (BigInt, u8) {
        let (digits, after) = self.0.as_bigint_and_exponent();
        match u8::try_from(after) {
            Ok(after) => (digits, after),
            // Normalization removed trailing zeros before the point.
            Err(_) => (digits * BigInt::from(10).pow(u32::try_from(-after).unwrap_or(0)), 0),
        }
    }
}

impl From<u32> for Decimal {
    fn from(whole: u32) -> Self {
        Self(BigDecimal::from(whole))
    }
}

impl FromStr for Decimal {
    type Err = InvalidDecimal;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidDecimal { text: text.chars().take(60).collect() };
        let are_digits =
            |part: &str, most| (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        let is_decimal = match text.split_once('.') {
            Some((whole, decimals)) => {
                are_digits(whole, Self::MAX_WHOLE_DIGITS) && are_digits(decimals, Self::MAX_DECIMALS)
            }
            None => are_digits(text, Self::MAX_WHOLE_DIGITS),
        };
        if !is_decimal {
            return Err(invalid());
        }
        BigDecimal::from_str(text).map(|decimal| Self(decimal.normalized())).map_err(|_| invalid())
    }
}

impl fmt::Display for Decimal {
    /// Writes the decimal without trailing zeros.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.to_plain_string())
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    /// Accepts a string or an integer. A float is rejected, since it may have lost digits.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Decimal;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a non-negative decimal as a string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Decimal, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, whole: u64) -> Result<Decimal, E> {
                Ok(Decimal(BigDecimal::from(whole)))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use bigdecimal::num_bigint::BigInt;

    use super::Decimal;

    #[test]
    fn decimal_is_exact_and_bounded() {
        for (text, shown) in [("0.0001", "0.0001"), ("0", "0"), ("12", "12"), ("1.500", "1.5"), ("100", "100")] {
            assert_eq!(text.parse::<Decimal>().unwrap().to_string(), shown);
        }
        assert!("12345678901234567890.123456789012345678".parse::<Decimal>().is_ok());
        let forty_digits = "1234567890123456789012345678901234567890";
        let forty_decimals = "0.0000000000000000000000000000000000000001";
        let wrong = ["", ".5", "5.", "-1", "+1", "1e3", "1,5", "1 ", "NaN", "1.2.3", "٣", forty_digits, forty_decimals];
        for text in wrong {
            assert!(text.parse::<Decimal>().is_err(), "{text}");
        }
    }

    #[test]
    fn decimal_splits_into_digits_and_scale() {
        let parts = |text: &str| text.parse::<Decimal>().unwrap().parts();
        assert_eq!(parts("100"), (BigInt::from(100), 0));
        assert_eq!(parts("1.50"), (BigInt::from(15), 1));
        assert_eq!(parts("0"), (BigInt::from(0), 0));
    }
}
