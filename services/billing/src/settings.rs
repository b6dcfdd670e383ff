//! The service's own environment variables.
//!
//! An invalid price stops the process at its start, with the name of the variable.

use rating::pricing::standard_plan::{FlatPrices, PriceError};

/// The ISO 4217 code of the currency of all prices (default: `EUR`).
pub const CURRENCY: &str = "CATACLOUD_CURRENCY";
/// The price of one GB-hour, 10⁹ bytes for one hour (default: `0.0001`).
pub const PRICE_GB_HOUR: &str = "CATACLOUD_PRICE_GB_HOUR";
/// The price of one second of run time (default: `0.00005`).
pub const PRICE_SECOND: &str = "CATACLOUD_PRICE_SECOND";

/// An invalid environment variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable} is invalid: {source}")]
pub struct SettingError {
    variable: &'static str,
    source: PriceError,
}

/// Returns the prices from environment variables. `variable` looks up a variable by its name.
///
/// # Errors
/// [`SettingError`] for an invalid variable.
pub fn prices(variable: impl Fn(&'static str) -> Option<String>) -> Result<FlatPrices, SettingError> {
    fn read<T>(name: &'static str, value: Option<String>, default: &str) -> Result<T, SettingError>
    where
        T: std::str::FromStr,
        PriceError: From<T::Err>,
    {
        let invalid = |source: T::Err| SettingError { variable: name, source: source.into() };
        value.as_deref().unwrap_or(default).parse().map_err(invalid)
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
    fn every_variable_has_a_default() {
        let prices = prices(|_| None).unwrap();
        let shown = (prices.currency.code(), prices.gb_hour.to_string(), prices.second.to_string());
        assert_eq!(shown, ("EUR", "0.0001".to_owned(), "0.00005".to_owned()));
    }

    #[test]
    fn set_variables_replace_defaults() {
        let set = |name| Some(if name == CURRENCY { "JPY" } else { "0.25" }.to_owned());
        let prices = prices(set).unwrap();
        assert_eq!((prices.currency.code(), prices.second.to_string().as_str()), ("JPY", "0.25"));
    }

    #[test]
    fn invalid_variable_is_named() {
        let wrong =
            [(CURRENCY, "euro"), (PRICE_GB_HOUR, "-1"), (PRICE_SECOND, "0.0000000000000000001"), (PRICE_SECOND, "")];
        for (name, value) in wrong {
            let refused = prices(|queried| (queried == name).then(|| value.to_owned())).unwrap_err().to_string();
            assert!(refused.starts_with(name) && refused.contains(&format!("{value:?}")), "{refused}");
        }
    }
}
