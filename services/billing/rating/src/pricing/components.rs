//! Price components: the charges of a plan as they are written, in JSON or in an event.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    money::decimal::Decimal,
    pricing::{
        meter::{Meter, Unit},
        price_model::{Charge, Model, Tier},
    },
    validation::Refused,
};

/// The most tiers of a charge.
const MAX_TIERS: usize = 100;

/// A charge as it is written, in JSON or in an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChargeDefinition {
    /// `storage` or `compute`.
    pub meter: String,
    /// `GB.h` or `GiB.h` for storage, `s` for compute.
    pub unit: String,
    /// `graduated`, `volume`, `package` or `flat`.
    pub model: String,
    /// For `graduated` and `volume`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiers: Option<Vec<TierDefinition>>,
    /// For `flat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit_price: Option<Decimal>,
    /// For `package` and `flat`; nothing if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free: Option<Decimal>,
    /// For `package`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package_size: Option<Decimal>,
    /// For `package`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package_price: Option<Decimal>,
}

/// A tier as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierDefinition {
    /// The last quantity in it; nothing for the last tier.
    #[serde(default)]
    pub up_to: Option<Decimal>,
    /// The price of a unit.
    pub unit_price: Decimal,
    /// Due once; nothing if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flat_fee: Option<Decimal>,
}

/// The charges of a plan, by meter.
///
/// # Errors
/// [`Refused`] with a place as `[1].tiers`.
pub fn charges(definitions: &[ChargeDefinition]) -> Result<BTreeMap<Meter, Charge>, Refused> {
    let mut charges = BTreeMap::new();
    for (index, definition) in definitions.iter().enumerate() {
        let at = format!("[{index}]");
        let charge = definition.charge().map_err(|refused| refused.within(&at))?;
        let meter = charge.meter();
        if charges.insert(meter, charge).is_some() {
            return Err(Refused::new(format!("{at}.meter"), format!("{} is charged for already", meter.as_str())));
        }
    }
    Ok(charges)
}

impl ChargeDefinition {
    /// The charge that is meant.
    ///
    /// # Errors
    /// [`Refused`] with the name of the field.
    pub fn charge(&self) -> Result<Charge, Refused> {
        let unit = match (self.meter.as_str(), self.unit.as_str()) {
            ("storage", "GB.h") => Unit::GbHour,
            ("storage", "GiB.h") => Unit::GibHour,
            ("compute", "s") => Unit::Second,
            ("storage", unit) => {
                return Err(Refused::new("unit", format!("storage is in GB.h or GiB.h, not {unit:?}")));
            }
            ("compute", unit) => return Err(Refused::new("unit", format!("compute is in s, not {unit:?}"))),
            (meter, _) => return Err(Refused::new("meter", format!("there is no meter {meter:?}"))),
        };
        let model = match self.model.as_str() {
            "graduated" => Model::Graduated(self.tiers()?),
            "volume" => Model::Volume(self.tiers()?),
            "package" => self.package()?,
            "flat" => {
                self.without(&["unit_price", "free"])?;
                let unit_price = required("unit_price", self.unit_price.as_ref())?;
                Model::Flat { free: self.free.clone().unwrap_or_else(Decimal::zero), unit_price }
            }
            model => return Err(Refused::new("model", format!("there is no model {model:?}"))),
        };
        Ok(Charge { unit, model })
    }

    fn package(&self) -> Result<Model, Refused> {
        self.without(&["free", "package_size", "package_price"])?;
        let size = required("package_size", self.package_size.as_ref())?;
        if size.is_zero() {
            return Err(Refused::new("package_size", "a package holds something"));
        }
        let price = required("package_price", self.package_price.as_ref())?;
        Ok(Model::Package { free: self.free.clone().unwrap_or_else(Decimal::zero), size, price })
    }

    fn tiers(&self) -> Result<Vec<Tier>, Refused> {
        self.without(&["tiers"])?;
        let Some(definitions) = &self.tiers else { return Err(missing("tiers")) };
        if definitions.len() > MAX_TIERS {
            return Err(Refused::new("tiers", format!("{} are more than {MAX_TIERS}", definitions.len())));
        }
        let mut tiers = Vec::new();
        let mut reached = Some(Decimal::zero());
        for (index, tier) in definitions.iter().enumerate() {
            let place = format!("tiers[{index}].up_to");
            let Some(reached_before) = reached else {
                return Err(Refused::new(place, "no tier can follow one without a bound"));
            };
            if let Some(up_to) = &tier.up_to
                && *up_to <= reached_before
            {
                return Err(Refused::new(place, format!("{up_to} doesn't lie above {reached_before}")));
            }
            reached = tier.up_to.clone();
            let flat_fee = tier.flat_fee.clone().unwrap_or_else(Decimal::zero);
            tiers.push(Tier { up_to: tier.up_to.clone(), unit_price: tier.unit_price.clone(), flat_fee });
        }
        if reached.is_some() {
            return Err(Refused::new("tiers", "the last tier must have no bound, up_to: null"));
        }
        Ok(tiers)
    }

    /// Refuses what doesn't belong to the model.
    fn without(&self, allowed: &[&str]) -> Result<(), Refused> {
        let said = [
            ("tiers", self.tiers.is_some()),
            ("unit_price", self.unit_price.is_some()),
            ("free", self.free.is_some()),
            ("package_size", self.package_size.is_some()),
            ("package_price", self.package_price.is_some()),
        ];
        match said.iter().find(|(name, is_said)| *is_said && !allowed.contains(name)) {
            Some((name, _)) => Err(Refused::new(*name, format!("doesn't belong to the model {:?}", self.model))),
            None => Ok(()),
        }
    }
}

fn required(name: &'static str, value: Option<&Decimal>) -> Result<Decimal, Refused> {
    value.cloned().ok_or_else(|| missing(name))
}

fn missing(name: &str) -> Refused {
    Refused::new(name, "is missing")
}

#[cfg(test)]
mod tests {
    use super::{ChargeDefinition, charges};
    use crate::pricing::meter::Meter;

    fn definition(json: &str) -> ChargeDefinition {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_cannot_price_everything_is_refused_with_its_place() {
        let cases = [
            (r#"{"meter":"network","unit":"GB","model":"flat"}"#, "meter: there is no meter \"network\""),
            (r#"{"meter":"storage","unit":"s","model":"flat"}"#, "unit: storage is in GB.h or GiB.h, not \"s\""),
            (r#"{"meter":"compute","unit":"GB.h","model":"flat"}"#, "unit: compute is in s, not \"GB.h\""),
            (r#"{"meter":"compute","unit":"s","model":"free"}"#, "model: there is no model \"free\""),
            (r#"{"meter":"compute","unit":"s","model":"flat"}"#, "unit_price: is missing"),
            (
                r#"{"meter":"compute","unit":"s","model":"flat","unit_price":"1","tiers":[]}"#,
                "tiers: doesn't belong to the model \"flat\"",
            ),
            (
                r#"{"meter":"compute","unit":"s","model":"package","package_size":"0","package_price":"1"}"#,
                "package_size: a package holds something",
            ),
            (r#"{"meter":"compute","unit":"s","model":"volume"}"#, "tiers: is missing"),
            (
                r#"{"meter":"compute","unit":"s","model":"volume","tiers":[]}"#,
                "tiers: the last tier must have no bound, up_to: null",
            ),
            (
                r#"{"meter":"compute","unit":"s","model":"volume","tiers":[{"up_to":"5","unit_price":"1"}]}"#,
                "tiers: the last tier must have no bound, up_to: null",
            ),
            (
                r#"{"meter":"compute","unit":"s","model":"graduated",
                "tiers":[{"up_to":"5","unit_price":"1"},{"up_to":"5.0","unit_price":"1"}]}"#,
                "tiers[1].up_to: 5 doesn't lie above 5",
            ),
            (
                r#"{"meter":"compute","unit":"s","model":"graduated","tiers":[{"up_to":"0","unit_price":"1"}]}"#,
                "tiers[0].up_to: 0 doesn't lie above 0",
            ),
            (
                r#"{"meter":"compute","unit":"s","model":"graduated",
                "tiers":[{"up_to":null,"unit_price":"1"},{"up_to":"5","unit_price":"1"}]}"#,
                "tiers[1].up_to: no tier can follow one without a bound",
            ),
        ];
        for (json, refused) in cases {
            assert_eq!(definition(json).charge().unwrap_err().to_string(), refused, "{json}");
        }
    }

    #[test]
    fn a_meter_is_charged_for_once() {
        let storage = definition(r#"{"meter":"storage","unit":"GB.h","model":"flat","unit_price":"1"}"#);
        let compute = definition(r#"{"meter":"compute","unit":"s","model":"flat","unit_price":"1"}"#);
        let both = charges(&[storage.clone(), compute.clone()]).unwrap();
        assert_eq!(both.keys().copied().collect::<Vec<_>>(), [Meter::Compute, Meter::Storage]);
        let twice = charges(&[storage.clone(), compute, storage]).unwrap_err();
        assert_eq!(twice.to_string(), "[2].meter: storage is charged for already");
    }
}
