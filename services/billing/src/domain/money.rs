//! Amounts of money.
//!
//! The problem: amounts that are rounded on the way don't add up. The invariant: everything is exact until a line is written;
//! there it is rounded once, half away from zero, to the digits of its currency.

use std::{fmt, str::FromStr};

use bigdecimal::{BigDecimal, num_bigint::BigInt};

use super::{currency::Currency, quantity::Quantity};

/// The price of one unit: an exact decimal, not negative, with at most 12 digits after the point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitPrice(BigDecimal);

/// Text that isn't a price.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a price: digits, and if need be a point and 1 to 12 digits after it")]
pub struct NotAPrice {
    text: String,
}

impl UnitPrice {
    const MAX_WHOLE_DIGITS: usize = 18;
    const MAX_DECIMALS: usize = 12;
}

impl FromStr for UnitPrice {
    type Err = NotAPrice;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let not_a_price = || NotAPrice { text: text.to_owned() };
        let are_digits =
            |part: &str, most| (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        let is_price = match text.split_once('.') {
            Some((whole, decimals)) => {
                are_digits(whole, Self::MAX_WHOLE_DIGITS) && are_digits(decimals, Self::MAX_DECIMALS)
            }
            None => are_digits(text, Self::MAX_WHOLE_DIGITS),
        };
        if !is_price {
            return Err(not_a_price());
        }
        BigDecimal::from_str(text).map(|price| Self(price.normalized())).map_err(|_| not_a_price())
    }
}

impl fmt::Display for UnitPrice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.to_plain_string())
    }
}

/// An amount of a currency, rounded to its digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amount {
    value: BigDecimal,
}

impl Amount {
    /// Nothing.
    #[must_use]
    pub fn zero(currency: Currency) -> Self {
        Self { value: BigDecimal::new(BigInt::from(0), i64::from(currency.digits())) }
    }

    /// What a quantity costs, rounded here and only here.
    #[must_use]
    pub fn of(quantity: Quantity, price: &UnitPrice, currency: Currency) -> Self {
        let (price, price_digits) = price.0.as_bigint_and_exponent();
        let digits = i64::from(currency.digits());
        // metered / size · price / 10^price_digits, in units of the currency's last digit.
        let mut numerator = BigInt::from(quantity.metered) * price;
        let mut denominator = BigInt::from(quantity.unit.size());
        match price_digits - digits {
            more @ 0.. => denominator *= power_of_ten(more),
            fewer => numerator *= power_of_ten(-fewer),
        }
        Self { value: BigDecimal::new(round_half_away(&numerator, &denominator), digits) }
    }

    /// The sum of two amounts of the same currency.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self { value: &self.value + &other.value }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.value.to_plain_string())
    }
}

/// What `run_ms` milliseconds cost at a price by the second: exact, as a decimal without trailing zeros.
#[must_use]
pub fn exact_cost_of_run(run_ms: i128, by_second: &UnitPrice) -> String {
    let seconds = BigDecimal::new(BigInt::from(run_ms), 3);
    (seconds * &by_second.0).normalized().to_plain_string()
}

fn power_of_ten(exponent: i64) -> BigInt {
    BigInt::from(10).pow(u32::try_from(exponent).unwrap_or(0))
}

/// `numerator / denominator`, to the nearest integer; halves away from zero. The denominator is positive.
fn round_half_away(numerator: &BigInt, denominator: &BigInt) -> BigInt {
    let quotient = numerator / denominator;
    let twice_the_rest: BigInt = (numerator % denominator) * 2;
    if twice_the_rest >= *denominator {
        return quotient + 1;
    }
    if -twice_the_rest >= *denominator {
        return quotient - 1;
    }
    quotient
}

#[cfg(test)]
mod tests {
    use bigdecimal::{BigDecimal, RoundingMode, num_bigint::BigInt};
    use proptest::prelude::*;

    use super::{Amount, UnitPrice, exact_cost_of_run, round_half_away};
    use crate::domain::{
        currency::Currency,
        quantity::{Quantity, Unit},
    };

    fn cost(run_ms: i128, price: &str, currency: &str) -> String {
        let quantity = Quantity { metered: run_ms, unit: Unit::Second };
        Amount::of(quantity, &price.parse().unwrap(), currency.parse().unwrap()).to_string()
    }

    #[test]
    fn prices_are_exact_decimals() {
        for (text, shown) in [("0.0001", "0.0001"), ("0", "0"), ("12", "12"), ("1.500", "1.5"), ("100", "100")] {
            assert_eq!(text.parse::<UnitPrice>().unwrap().to_string(), shown);
        }
        assert!("0.123456789012".parse::<UnitPrice>().is_ok());
        let wrong =
            ["", ".5", "5.", "-1", "+1", "1e3", "0.1234567890123", "1,5", "1 ", "NaN", "1.2.3", "1234567890123456789"];
        for text in wrong {
            assert!(text.parse::<UnitPrice>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_line_is_rounded_half_away_from_zero_to_the_digits_of_its_currency() {
        let cases = [
            (1_000, "0.005", "EUR", "0.01"),
            (1_000, "0.004999999999", "EUR", "0.00"),
            (-1_000, "0.005", "EUR", "-0.01"),
            (-1_000, "0.004", "EUR", "0.00"),
            (1_000, "2.675", "USD", "2.68"),
            (1_000, "0.5", "JPY", "1"),
            (1_000, "1000", "JPY", "1000"),
            (1_000, "0.0005", "KWD", "0.001"),
            (2_000_000, "5", "EUR", "10000.00"),
            (0, "5", "EUR", "0.00"),
        ];
        for (run_ms, price, currency, expected) in cases {
            assert_eq!(cost(run_ms, price, currency), expected, "{run_ms} {price} {currency}");
        }
    }

    #[test]
    fn a_quantity_without_end_is_priced_exactly() {
        // A third of a gigabyte-hour, at a price that makes it half a cent, which a cut quantity would miss.
        let third = Quantity { metered: 1_200_000_000_000_000, unit: Unit::GbHour };
        let amount = Amount::of(third, &"0.015".parse().unwrap(), "EUR".parse().unwrap());
        assert_eq!(amount.to_string(), "0.01");
    }

    #[test]
    fn amounts_add_up() {
        let currency: Currency = "EUR".parse().unwrap();
        let one = Amount::of(Quantity { metered: 1_000, unit: Unit::Second }, &"1".parse().unwrap(), currency);
        assert_eq!(Amount::zero(currency).to_string(), "0.00");
        assert_eq!(Amount::zero(currency).plus(&one).plus(&one).to_string(), "2.00");
        assert_eq!(Amount::zero("JPY".parse().unwrap()).to_string(), "0");
    }

    #[test]
    fn the_cost_of_a_run_is_not_rounded() {
        let cost = |run_ms, price: &str| exact_cost_of_run(run_ms, &price.parse().unwrap());
        assert_eq!(cost(1, "0.00005"), "0.00000005");
        assert_eq!(cost(7_207_250, "0.00005"), "0.3603625");
        assert_eq!(cost(3_000, "10"), "30");
        assert_eq!(cost(0, "10"), "0");
        assert_eq!(cost(1, "0.000000000001"), "0.000000000000001");
        assert_eq!(cost(9_999_999_999_999_999_999_999_999, "0.000000000003"), "29999999999.999999999999997");
    }

    proptest! {
        #[test]
        fn rounds_as_the_decimals_do(numerator in any::<i64>(), digits in 0..9_u32) {
            let denominator = BigInt::from(10_i64.pow(digits));
            let expected = BigDecimal::new(BigInt::from(numerator), i64::from(digits));
            let expected = expected.with_scale_round(0, RoundingMode::HalfUp).as_bigint_and_exponent().0;
            prop_assert_eq!(round_half_away(&BigInt::from(numerator), &denominator), expected);
        }

        #[test]
        fn is_never_off_by_more_than_half(numerator in any::<i64>(), denominator in 1..i64::MAX) {
            let (numerator, denominator) = (BigInt::from(numerator), BigInt::from(denominator));
            let rounded = round_half_away(&numerator, &denominator);
            let off: BigInt = (rounded * &denominator - &numerator) * 2;
            prop_assert!(off <= denominator && -off <= denominator);
        }
    }
}
