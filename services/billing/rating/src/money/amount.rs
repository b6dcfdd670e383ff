//! Amounts of money, rounded to the digits of their currency.
//!
//! Values stay exact until an invoice line is written. There they are rounded once, half away from zero;
//! amounts that are rounded earlier would not add up.

use std::fmt;

use bigdecimal::{BigDecimal, num_bigint::BigInt};

use crate::money::{currency::Currency, decimal::Decimal, exact::Exact};

/// An amount in a currency, rounded to its digits. Operands must have the same currency.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount {
    /// The amount in the smallest unit of the currency.
    minor: BigInt,
    digits: u8,
}

/// A decimal with more digits than its currency.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{decimal} has more than the {digits} decimals of {currency}")]
pub struct ExcessPrecision {
    decimal: Decimal,
    digits: u8,
    currency: &'static str,
}

/// Text that is not an amount in its currency.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an amount in {currency}")]
pub struct InvalidAmount {
    text: String,
    currency: &'static str,
}

impl Amount {
    #[must_use]
    pub fn zero(currency: Currency) -> Self {
        Self { minor: BigInt::from(0), digits: currency.digits() }
    }

    /// Rounds an exact value, half away from zero.
    #[must_use]
    pub fn rounded(exact: &Exact, currency: Currency) -> Self {
        Self { minor: exact.rounded(currency.digits()), digits: currency.digits() }
    }

    /// Converts a decimal.
    ///
    /// # Errors
    /// [`ExcessPrecision`] when the decimal would have to be rounded.
    pub fn from_decimal(decimal: &Decimal, currency: Currency) -> Result<Self, ExcessPrecision> {
        let digits = currency.digits();
        let (number, after) = decimal.parts();
        match digits.checked_sub(after) {
            Some(more) => Ok(Self { minor: number * BigInt::from(10).pow(u32::from(more)), digits }),
            None => Err(ExcessPrecision { decimal: decimal.clone(), digits, currency: currency.code() }),
        }
    }

    /// Parses an amount, which may be negative and of any size.
    ///
    /// # Errors
    /// [`InvalidAmount`].
    pub fn parse(text: &str, currency: Currency) -> Result<Self, InvalidAmount> {
        let invalid = || InvalidAmount { text: text.chars().take(60).collect(), currency: currency.code() };
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, part)| (whole, Some(part)));
        let are_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let most = usize::from(currency.digits());
        if !are_digits(whole) || fraction.is_some_and(|fraction| !are_digits(fraction) || fraction.len() > most) {
            return Err(invalid());
        }
        let digits = format!("{whole}{:0<most$}", fraction.unwrap_or_default());
        let minor: BigInt = digits.parse().map_err(|_| invalid())?;
        Ok(Self::from_minor(if text.starts_with('-') { -minor } else { minor }, currency))
    }

    /// Creates an amount from the smallest unit of the currency.
    #[must_use]
    pub fn from_minor(minor: BigInt, currency: Currency) -> Self {
        Self { minor, digits: currency.digits() }
    }

    /// Returns the amount in the smallest unit of its currency.
    #[must_use]
    pub fn minor(&self) -> &BigInt {
        &self.minor
    }

    /// Returns the sum; both amounts must have the same currency.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self { minor: &self.minor + &other.minor, digits: self.digits }
    }

    /// Returns the difference; both amounts must have the same currency.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self { minor: &self.minor - &other.minor, digits: self.digits }
    }

    /// Returns a percentage of the amount, rounded.
    #[must_use]
    pub fn percent(&self, percent: &Decimal) -> Self {
        Self { minor: self.exact_percent(percent).rounded(self.digits), digits: self.digits }
    }

    /// Returns a percentage of the amount, not rounded.
    #[must_use]
    pub fn exact_percent(&self, percent: &Decimal) -> Exact {
        self.exact().times(&Exact::from(percent)).times(&Exact::hundredth())
    }

    /// Returns the amount as an exact value.
    #[must_use]
    pub fn exact(&self) -> Exact {
        Exact::of_digits(self.minor.clone(), self.digits)
    }

    /// Returns the absolute value as a decimal.
    #[must_use]
    pub fn decimal(&self) -> Decimal {
        Decimal::of_digits(BigInt::from(self.minor.magnitude().clone()), self.digits)
    }

    /// Returns the amount, or zero if it is negative.
    #[must_use]
    pub fn non_negative(self) -> Self {
        let minor = self.minor.max(BigInt::from(0));
        Self { minor, ..self }
    }

    /// Returns whether the amount is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.minor == BigInt::from(0)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&BigDecimal::new(self.minor.clone(), i64::from(self.digits)).to_plain_string())
    }
}

#[cfg(test)]
mod tests {
    use super::Amount;
    use crate::{
        money::{currency::Currency, decimal::Decimal, exact::Exact},
        pricing::meter::{Quantity, Unit},
    };

    fn priced(quantity: Quantity, price: &str, currency: Currency) -> Amount {
        let price: Decimal = price.parse().unwrap();
        Amount::rounded(&Exact::from(quantity).times(&Exact::from(&price)), currency)
    }

    fn cost(run_ms: i128, price: &str, currency: &str) -> String {
        let quantity = Quantity { metered: run_ms, unit: Unit::Second };
        priced(quantity, price, currency.parse().unwrap()).to_string()
    }

    #[test]
    fn amount_is_rounded_half_away_from_zero() {
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
    fn repeating_decimal_quantity_is_priced_exactly() {
        // A third of a gigabyte-hour at 0.015 costs exactly half a cent. A truncated quantity would cost
        // less.
        let third = Quantity { metered: 1_200_000_000_000_000, unit: Unit::GbHour };
        let amount = priced(third, "0.015", "EUR".parse().unwrap());
        assert_eq!(amount.to_string(), "0.01");
    }

    #[test]
    fn amounts_add_up() {
        let currency: Currency = "EUR".parse().unwrap();
        let one = priced(Quantity { metered: 1_000, unit: Unit::Second }, "1", currency);
        assert_eq!(Amount::zero(currency).to_string(), "0.00");
        assert_eq!(Amount::zero(currency).plus(&one).plus(&one).to_string(), "2.00");
        assert_eq!(Amount::zero(currency).minus(&one).to_string(), "-1.00");
        assert!(Amount::zero(currency).minus(&one).non_negative().is_zero());
        assert_eq!(Amount::zero("JPY".parse().unwrap()).to_string(), "0");
    }

    #[test]
    fn written_amount_parses_again() {
        let parse = |text: &str, currency: &str| {
            Amount::parse(text, currency.parse().unwrap()).map(|amount| amount.to_string()).ok()
        };
        let long = format!("-{}.25", "9".repeat(40));
        for (text, currency) in [("0.00", "EUR"), ("-0.05", "EUR"), ("-12", "JPY"), ("0.001", "KWD"), (&long, "EUR")] {
            assert_eq!(parse(text, currency), Some(text.to_owned()), "{text} {currency}");
        }
        assert_eq!((parse("1.5", "EUR"), parse("1", "EUR")), (Some("1.50".to_owned()), Some("1.00".to_owned())));
        for (text, currency) in [
            ("", "EUR"),
            ("-", "EUR"),
            ("--1", "EUR"),
            ("1.", "EUR"),
            (".5", "EUR"),
            ("1.005", "EUR"),
            ("1.5", "JPY"),
            ("1e3", "EUR"),
            ("+1", "EUR"),
        ] {
            assert_eq!(parse(text, currency), None, "{text} {currency}");
        }
    }

    #[test]
    fn decimal_is_never_rounded() {
        let from_decimal = |text: &str, currency: &str| {
            let decimal: Decimal = text.parse().unwrap();
            Amount::from_decimal(&decimal, currency.parse().unwrap()).map(|amount| amount.to_string()).ok()
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(from_decimal("5", "EUR"), some("5.00"));
        assert_eq!((from_decimal("500.00", "JPY"), from_decimal("500.5", "JPY")), (some("500"), None));
        assert_eq!((from_decimal("0.005", "KWD"), from_decimal("0.005", "EUR")), (some("0.005"), None));
    }

    #[test]
    fn percentage_is_rounded_half_away_from_zero() {
        let percent = |amount: &str, percent: &str| {
            let amount = Amount::from_decimal(&amount.parse().unwrap(), "EUR".parse().unwrap()).unwrap();
            amount.percent(&percent.parse().unwrap()).to_string()
        };
        assert_eq!((percent("7.62", "15"), percent("6.48", "21")), ("1.14".to_owned(), "1.36".to_owned()));
        assert_eq!((percent("0.10", "5"), percent("0.10", "4.99")), ("0.01".to_owned(), "0.00".to_owned()));
    }
}
