//! Amounts of money.
//!
//! The problem: amounts that are rounded on the way don't add up. The invariant: everything is exact until a line is written;
//! there it is rounded once, half away from zero, to the digits of its currency.

use std::fmt;

use bigdecimal::{BigDecimal, num_bigint::BigInt};

use crate::money::{currency::Currency, decimal::Decimal, exact::Exact};

/// An amount of a currency, rounded to its digits. Amounts that meet are of the same currency.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount {
    /// In the smallest unit of the currency.
    minor: BigInt,
    digits: u8,
}

/// A decimal that is finer than its currency.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{decimal} is finer than the {digits} digits of {currency}")]
pub struct TooFine {
    decimal: Decimal,
    digits: u8,
    currency: &'static str,
}

/// Text that isn't an amount of its currency.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an amount of {currency}")]
pub struct NotAnAmount {
    text: String,
    currency: &'static str,
}

impl Amount {
    /// Nothing.
    #[must_use]
    pub fn zero(currency: Currency) -> Self {
        Self { minor: BigInt::from(0), digits: currency.digits() }
    }

    /// This much, rounded here and only here.
    #[must_use]
    pub fn rounded(exact: &Exact, currency: Currency) -> Self {
        Self { minor: exact.rounded(currency.digits()), digits: currency.digits() }
    }

    /// An amount that was given as a decimal.
    ///
    /// # Errors
    /// [`TooFine`] when it would have to be rounded.
    pub fn given(decimal: &Decimal, currency: Currency) -> Result<Self, TooFine> {
        let digits = currency.digits();
        let (number, after) = decimal.parts();
        match digits.checked_sub(after) {
            Some(more) => Ok(Self { minor: number * BigInt::from(10).pow(u32::from(more)), digits }),
            None => Err(TooFine { decimal: decimal.clone(), digits, currency: currency.code() }),
        }
    }

    /// An amount as it is written, which may be less than nothing. Whatever was computed can be read: it has no most.
    ///
    /// # Errors
    /// [`NotAnAmount`].
    pub fn read(text: &str, currency: Currency) -> Result<Self, NotAnAmount> {
        let not_an_amount = || NotAnAmount { text: text.chars().take(60).collect(), currency: currency.code() };
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, part)| (whole, Some(part)));
        let are_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let most = usize::from(currency.digits());
        if !are_digits(whole) || fraction.is_some_and(|fraction| !are_digits(fraction) || fraction.len() > most) {
            return Err(not_an_amount());
        }
        let digits = format!("{whole}{:0<most$}", fraction.unwrap_or_default());
        let minor: BigInt = digits.parse().map_err(|_| not_an_amount())?;
        Ok(Self::of_minor(if text.starts_with('-') { -minor } else { minor }, currency))
    }

    /// So many of the smallest unit of the currency.
    #[must_use]
    pub fn of_minor(minor: BigInt, currency: Currency) -> Self {
        Self { minor, digits: currency.digits() }
    }

    /// How many of the smallest unit of its currency.
    #[must_use]
    pub fn minor(&self) -> &BigInt {
        &self.minor
    }

    /// The sum of two amounts of the same currency.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self { minor: &self.minor + &other.minor, digits: self.digits }
    }

    /// The difference of two amounts of the same currency.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self { minor: &self.minor - &other.minor, digits: self.digits }
    }

    /// So many hundredths of it, rounded.
    #[must_use]
    pub fn percent(&self, percent: &Decimal) -> Self {
        Self { minor: self.exact_percent(percent).rounded(self.digits), digits: self.digits }
    }

    /// So many hundredths of it, not rounded.
    #[must_use]
    pub fn exact_percent(&self, percent: &Decimal) -> Exact {
        self.exact().times(&Exact::from(percent)).times(&Exact::hundredth())
    }

    /// The amount as a fraction of the currency.
    #[must_use]
    pub fn exact(&self) -> Exact {
        Exact::of_digits(self.minor.clone(), self.digits)
    }

    /// The amount as a decimal, which has no sign.
    #[must_use]
    pub fn decimal(&self) -> Decimal {
        Decimal::of_digits(BigInt::from(self.minor.magnitude().clone()), self.digits)
    }

    /// Itself, or nothing if it is less.
    #[must_use]
    pub fn at_least_nothing(self) -> Self {
        let minor = self.minor.max(BigInt::from(0));
        Self { minor, ..self }
    }

    /// Whether it is nothing.
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
        assert!(Amount::zero(currency).minus(&one).at_least_nothing().is_zero());
        assert_eq!(Amount::zero("JPY".parse().unwrap()).to_string(), "0");
    }

    #[test]
    fn what_is_written_can_be_read_again() {
        let read = |text: &str, currency: &str| {
            Amount::read(text, currency.parse().unwrap()).map(|amount| amount.to_string()).ok()
        };
        let long = format!("-{}.25", "9".repeat(40));
        for (text, currency) in [("0.00", "EUR"), ("-0.05", "EUR"), ("-12", "JPY"), ("0.001", "KWD"), (&long, "EUR")] {
            assert_eq!(read(text, currency), Some(text.to_owned()), "{text} {currency}");
        }
        assert_eq!((read("1.5", "EUR"), read("1", "EUR")), (Some("1.50".to_owned()), Some("1.00".to_owned())));
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
            assert_eq!(read(text, currency), None, "{text} {currency}");
        }
    }

    #[test]
    fn what_is_given_is_never_rounded() {
        let given = |text: &str, currency: &str| {
            let decimal: Decimal = text.parse().unwrap();
            Amount::given(&decimal, currency.parse().unwrap()).map(|amount| amount.to_string()).ok()
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(given("5", "EUR"), some("5.00"));
        assert_eq!((given("500.00", "JPY"), given("500.5", "JPY")), (some("500"), None));
        assert_eq!((given("0.005", "KWD"), given("0.005", "EUR")), (some("0.005"), None));
    }

    #[test]
    fn a_percentage_is_rounded_half_away_from_zero() {
        let percent = |amount: &str, percent: &str| {
            let amount = Amount::given(&amount.parse().unwrap(), "EUR".parse().unwrap()).unwrap();
            amount.percent(&percent.parse().unwrap()).to_string()
        };
        assert_eq!((percent("7.62", "15"), percent("6.48", "21")), ("1.14".to_owned(), "1.36".to_owned()));
        assert_eq!((percent("0.10", "5"), percent("0.10", "4.99")), ("0.01".to_owned(), "0.00".to_owned()));
    }
}
