//! The service's own settings.
//!
//! The invariant: a price that can't be used stops the process at its start, with the variable's name.

use rating::pricing::standard_plan::{FlatPrices, PriceError};

/// The currency of all prices, as a code of ISO 4217; `EUR` if not set.
pub const CURRENCY: &str = "CATACLOUD_CURRENCY";
/// The price of a gigabyte (10⁹ bytes) and hour; `0.0001` if not set.
pub const PRICE_GB_HOUR: &str = "CATACLOUD_PRICE_GB_HOUR";
/// The price of a second of run time; `0.00005` if not set.
pub const PRICE_SECOND: &str = "CATACLOUD_PRICE_SECOND";

/// A variable that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable} can't be used: {source}")]
pub struct SettingError {
    variable: &'static str,
    source: PriceError,
}

/// The prices that variables say, each found by its name.
///
/// # Errors
/// [`SettingError`] when one can't be used.
pub fn prices(variable: impl Fn(&'static str) -> Option<String>) -> Result<FlatPrices, SettingError> {
    fn read<T>(name: &'static str, value: Option<String>, default: &str) -> Result<T, SettingError>
    where
        T: std::str::FromStr,
        PriceError: From<T::Err>,
    {
        let refused = |source: T::Err| SettingError { variable: name, source: source.into() };
        value.as_deref().unwrap_or(default).parse().map_err(refused)
    }
    Ok(FlatPrices {
        currency: read(CURRENCY, variable(CURRENCY), "EUR")?,
        gb_hour: read(PRICE_GB_HOUR, variable(PRICE_GB_HOUR), "0.0001")?,
        second: read(PRICE_SECOND, variable(PRICE_SECOND), "0.00005")?,
    })
}

#[cfg(test)]
mod tests {
    use super::{CURRENCY, PRICE_GB_HOUR, PRICE_SECOND, prices};

    #[test]
    fn every_setting_has_a_default() {
        let prices = prices(|_| None).unwrap();
        let shown = (prices.currency.code(), prices.gb_hour.to_string(), prices.second.to_string());
        assert_eq!(shown, ("EUR", "0.0001".to_owned(), "0.00005".to_owned()));
    }

    #[test]
    fn what_is_set_is_used() {
        let set = |name| Some(if name == CURRENCY { "JPY" } else { "0.25" }.to_owned());
        let prices = prices(set).unwrap();
        assert_eq!((prices.currency.code(), prices.second.to_string().as_str()), ("JPY", "0.25"));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let wrong =
            [(CURRENCY, "euro"), (PRICE_GB_HOUR, "-1"), (PRICE_SECOND, "0.0000000000000000001"), (PRICE_SECOND, "")];
        for (name, value) in wrong {
            let refused = prices(|asked| (asked == name).then(|| value.to_owned())).unwrap_err().to_string();
            assert!(refused.starts_with(name) && refused.contains(&format!("{value:?}")), "{refused}");
        }
    }
}
