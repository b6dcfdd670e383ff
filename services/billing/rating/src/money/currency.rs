//! Currencies of ISO 4217 and their digits.
//!
//! A yen has no decimals and a dinar has three. A [`Currency`] is an active currency and knows the digits of
//! its amounts.

use std::{fmt, str::FromStr};

/// A currency of ISO 4217.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency {
    code: &'static str,
    digits: u8,
}

/// Text that is not a currency code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code:?} is not a currency of ISO 4217, such as EUR")]
pub struct UnknownCurrency {
    code: String,
}

/// Active codes of ISO 4217 list one by digits, without funds, metals and test codes.
const CODES: [(u8, &str); 4] = [
    (0, "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF"),
    (
        2,
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP CRC CUP \
         CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES \
         KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK \
         NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB \
         TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG",
    ),
    (3, "BHD IQD JOD KWD LYD OMR TND"),
    (4, "UYW"),
];

impl Currency {
    /// Returns the code, such as `EUR`.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.code
    }

    /// Returns the number of decimals of its amounts.
    #[must_use]
    pub fn digits(self) -> u8 {
        self.digits
    }
}

impl FromStr for Currency {
    type Err = UnknownCurrency;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        for (digits, codes) in CODES {
            if let Some(code) = codes.split(' ').find(|code| *code == text) {
                return Ok(Self { code, digits });
            }
        }
        Err(UnknownCurrency { code: text.to_owned() })
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.code)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{CODES, Currency};

    #[test]
    fn currency_knows_its_digits() {
        for (code, digits) in [("EUR", 2), ("USD", 2), ("JPY", 0), ("KWD", 3), ("UYW", 4)] {
            let currency: Currency = code.parse().unwrap();
            assert_eq!((currency.code(), currency.digits()), (code, digits));
        }
        for wrong in ["", "eur", "EURO", "XXX", "EUR USD", " EUR", "€"] {
            assert!(wrong.parse::<Currency>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn currency_codes_are_unique() {
        let codes: Vec<_> = CODES.iter().flat_map(|(_, codes)| codes.split(' ')).collect();
        assert!(codes.iter().all(|code| code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase())));
        assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), codes.len());
    }
}
