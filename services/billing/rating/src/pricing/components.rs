//! Price components: the charges of a plan in JSON and in events.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    money::decimal::Decimal,
    pricing::{
        meter::{Meter, Unit},
        price_model::{Charge, PriceModel, Tier},
    },
    validation::InvalidInput,
};

/// The maximum number of tiers of a charge.
const MAX_TIERS: usize = 100;

/// A charge in JSON or in an event, not validated yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChargeDefinition {
    /// `storage` or `compute`.
    pub meter: String,
    /// `GB.h` or `GiB.h` for storage, `s` for compute.
    pub unit: String,
    /// `graduated`, `volume`, `package` or `flat`.
    pub model: String,
    /// Required for `graduated` and `volume`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiers: Option<Vec<TierDefinition>>,
    /// Required for `flat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit_price: Option<Decimal>,
    /// Free units of `package` and `flat`, 0 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free: Option<Decimal>,
    /// Required for `package`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package_size: Option<Decimal>,
    /// Required for `package`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package_price: Option<Decimal>,
}

/// A tier in JSON or in an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierDefinition {
    /// The last quantity in the tier; `None` for the last tier.
    #[serde(default)]
    pub up_to: Option<Decimal>,
    /// The price of one unit.
    pub unit_price: Decimal,
    /// A fee due once, 0 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flat_fee: Option<Decimal>,
}

/// Validates the charges of a plan and returns them by meter.
///
/// # Errors
/// [`InvalidInput`] with a place such as `[1].tiers`.
pub fn charges(definitions: &[ChargeDefinition]) -> Result<BTreeMap<Meter, Charge>, InvalidInput> {
    let mut charges = BTreeMap::new();
    for (index, definition) in definitions.iter().enumerate() {
        let at = format!("[{index}]");
        let charge = definition.charge().map_err(|error| error.within(&at))?;
        let meter = charge.meter();
        if charges.insert(meter, charge).is_some() {
            return Err(InvalidInput::new(format!("{at}.meter"), format!("{} has a charge already", meter.as_str())));
        }
    }
    Ok(charges)
}

impl ChargeDefinition {
    /// Validates the definition.
    ///
    /// # Errors
    /// [`InvalidInput`] with the name of the field.
    pub fn charge(&self) -> Result<Charge, InvalidInput> {
        let unit = match (self.meter.as_str(), self.unit.as_str()) {
            ("storage", "GB.h") => Unit::GbHour,
            ("storage", "GiB.h") => Unit::GibHour,
            ("compute", "s") => Unit::Second,
            ("storage", unit) => {
                return Err(InvalidInput::new("unit", format!("storage is in GB.h or GiB.h, not {unit:?}")));
            }
            ("compute", unit) => return Err(InvalidInput::new("unit", format!("compute is in s, not {unit:?}"))),
            (meter, _) => return Err(InvalidInput::new("meter", format!("unknown meter {meter:?}"))),
        };
        let model = match self.model.as_str() {
            "graduated" => PriceModel::Graduated(self.tiers()?),
            "volume" => PriceModel::Volume(self.tiers()?),
            "package" => self.package()?,
            "flat" => {
                self.reject_fields_except(&["unit_price", "free"])?;
                let unit_price = required("unit_price", self.unit_price.as_ref())?;
                PriceModel::Flat { free: self.free.clone().unwrap_or_else(Decimal::zero), unit_price }
            }
            model => return Err(InvalidInput::new("model", format!("unknown model {model:?}"))),
        };
        Ok(Charge { unit, model })
    }

    fn package(&self) -> Result<PriceModel, InvalidInput> {
        self.reject_fields_except(&["free", "package_size", "package_price"])?;
        let size = required("package_size", self.package_size.as_ref())?;
        if size.is_zero() {
            return Err(InvalidInput::new("package_size", "must be above 0"));
        }
        let price = required("package_price", self.package_price.as_ref())?;
        Ok(PriceModel::Package { free: self.free.clone().unwrap_or_else(Decimal::zero), size, price })
    }

    fn tiers(&self) -> Result<Vec<Tier>, InvalidInput> {
        self.reject_fields_except(&["tiers"])?;
        let Some(definitions) = &self.tiers else { return Err(missing("tiers")) };
        if definitions.len() > MAX_TIERS {
            return Err(InvalidInput::new("tiers", format!("{} exceed the maximum of {MAX_TIERS}", definitions.len())));
        }
        let mut tiers = Vec::new();
        let mut reached = Some(Decimal::zero());
        for (index, tier) in definitions.iter().enumerate() {
            let place = format!("tiers[{index}].up_to");
            let Some(reached_before) = reached else {
                return Err(InvalidInput::new(place, "follows a tier without a bound"));
            };
            if let Some(up_to) = &tier.up_to
                && *up_to <= reached_before
            {
                return Err(InvalidInput::new(place, format!("{up_to} is not above {reached_before}")));
            }
            reached = tier.up_to.clone();
            let flat_fee = tier.flat_fee.clone().unwrap_or_else(Decimal::zero);
            tiers.push(Tier { up_to: tier.up_to.clone(), unit_price: tier.unit_price.clone(), flat_fee });
        }
        if reached.is_some() {
            return Err(InvalidInput::new("tiers", "the last tier must have no bound (up_to: null)"));
        }
        Ok(tiers)
    }

    /// Rejects fields that do not belong to the model.
    fn reject_fields_except(&self, allowed: &[&str]) -> Result<(), InvalidInput> {
        let fields = [
            ("tiers", self.tiers.is_some()),
            ("unit_price", self.unit_price.is_some()),
            ("free", self.free.is_some()),
            ("package_size", self.package_size.is_some()),
            ("package_price", self.package_price.is_some()),
        ];
        match fields.iter().find(|(name, is_set)| *is_set && !allowed.contains(name)) {
            Some((name, _)) => Err(InvalidInput::new(*name, format!("does not belong to the model {:?}", self.model))),
            None => Ok(()),
        }
    }
}

fn required(name: &'static str, value: Option<&Decimal>) -> Result<Decimal, InvalidInput> {
    value.cloned().ok_or_else(|| missing(name))
}

fn missing(name: &str) -> InvalidInput {
    InvalidInput::new(name, "is missing")
}

#[cfg(test)]
mod tests {
    use super::{ChargeDefinition, charges};
    use crate::pricing::meter::Meter;

    fn definition(json: &str) -> ChargeDefinition {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn invalid_charge_is_rejected_with_its_place() {
        let cases = [
            (r#"{"meter":"network","unit":"GB","model":"flat"}"#, "meter: unknown meter \"network\""),
            (r#"{"meter":"storage","unit":"s","model":"flat"}"#, "unit: storage is in GB.h or GiB.h, not \"s\""),
            (r#"{"meter":"compute","unit":"GB.h","model":"flat"}"#, "unit: compute is in s, not \"GB.h\""),
            (r#"{"meter":"compute","unit":"s","model":"free"}"#, "model: unknown model \"free\""),
            (r#"{"meter":"compute","unit":"s","model":"flat"}"#, "unit_price: is missing"),
            (
                r#"{"meter":"compute","unit":"s","model":"flat","unit_price":"1","tiers":[]}"#,
                "tiers: does not belong to the model \"flat\"",
            ),
            (
                r#"{"meter":"compute","unit":"s","model":"package","package_size":"0","package_price":"1"}"#,
                "package_size: must be above 0",
            ),
            (r#"{"meter":"compute","unit":"s","model":"volume"}"#, "tiers: is missing"),
            (
                r#"{"meter":"compute","unit":"s","model":"volume","tiers":[]}"#,
                "tiers: the last tier must have no bound (up_to: null)",
            ),
            (
                r#"{"meter":"compute","unit":"s","model":"volume","tiers":[{"up_to":"5","unit_price":"1"}]}"#,
                "tiers: the last tier must have no bound (up_to: null)",
            ),
            (
                r#"{"meter":"compute","unit":"s","model":"graduated",
                "tiers":[{"up_to":"5","unit_price":"1"},{"up_to":"5.0","unit_price":"1"}]}"#,
                "tiers[1].up_to: 5 is not above 5",
            ),
            (
                r#"{"meter":"compute","unit":"s","model":"graduated","tiers":[{"up_to":"0","unit_price":"1"}]}"#,
                "tiers[0].up_to: 0 is not above 0",
            ),
            (
                r#"{"meter":"compute","unit":"s","model":"graduated",
                "tiers":[{"up_to":null,"unit_price":"1"},{"up_to":"5","unit_price":"1"}]}"#,
                "tiers[1].up_to: follows a tier without a bound",
            ),
        ];
        for (json, message) in cases {
            assert_eq!(definition(json).charge().unwrap_err().to_string(), message, "{json}");
        }
    }

    #[test]
    fn meter_has_one_charge() {
        let storage = definition(r#"{"meter":"storage","unit":"GB.h","model":"flat","unit_price":"1"}"#);
        let compute = definition(r#"{"meter":"compute","unit":"s","model":"flat","unit_price":"1"}"#);
        let both = charges(&[storage.clone(), compute.clone()]).unwrap();
        assert_eq!(both.keys().copied().collect::<Vec<_>>(), [Meter::Compute, Meter::Storage]);
        let twice = charges(&[storage.clone(), compute, storage]).unwrap_err();
        assert_eq!(twice.to_string(), "[2].meter: storage has a charge already");
    }
}
