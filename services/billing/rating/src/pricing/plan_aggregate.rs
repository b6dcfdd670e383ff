//! The plan aggregate and its versions.
//!
//! A price that changes under a customer is a broken promise, so a published version never changes and stays
//! readable. A retired plan gets no new versions and no new accounts; existing accounts keep it.
//!
//! The plan [`standard`] belongs to the service and holds the prices of the installation. Opening an account
//! publishes a version of it if the prices differ from its last version. Operators can neither publish nor
//! retire it, since accounts are opened with it.

use contracts::plan::{self as contract, PlanEvent, PlanPublished, PlanRetired};
use epoch::Aggregate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    money::{
        amount::{Amount, ExcessPrecision},
        currency::{Currency, UnknownCurrency},
        decimal::{Decimal, InvalidDecimal},
    },
    pricing::{
        components::{ChargeDefinition, TierDefinition, charges},
        plan::{Plan, PlanVersion},
    },
    sharing::rule::SharingRule,
    validation::{InvalidInput, percent, text},
};

/// The maximum number of versions of a plan.
const MAX_VERSIONS: usize = 10_000;
/// The UUID namespace for ids of the service's plans.
const SERVICE_NAMESPACE: Uuid = Uuid::from_u128(0x0b1c_53f4_6d0f_4f0e_9a4e_7c19_27d4_a1e5);
/// The versions of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanCatalogue {
    versions: Vec<PlanPublished>,
    retired: Option<String>,
}

/// The content of a version to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanDefinition {
    /// The display name.
    pub name: String,
    /// The currency of all prices.
    pub currency: String,
    /// The rule by which jobs share files.
    pub split: SharingRule,
    /// The charge of each meter.
    pub charges: Vec<ChargeDefinition>,
    /// The minimum charge of a month, before tax.
    pub minimum: Option<Decimal>,
    /// The tax in percent.
    pub tax_percent: Option<Decimal>,
}

/// Commands of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanCommand {
    /// Publishes a new version.
    Publish(PlanDefinition),
    /// Publishes a new version unless it equals the last one.
    PublishIfChanged(PlanDefinition),
    /// Closes the plan to new accounts.
    Retire { reason: String },
}

/// Reasons a plan rejects a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("the plan does not exist")]
    NotFound,
    #[error("the plan has no version {version}")]
    NoSuchVersion { version: u32 },
    #[error("the plan is retired: {reason}")]
    Retired { reason: String },
    /// The command targets the standard plan of the service.
    #[error("the standard plan follows the settings of the installation and cannot be changed")]
    Standard,
    #[error("a plan has at most {MAX_VERSIONS} versions")]
    TooManyVersions,
    /// The content of the version is invalid.
    #[error(transparent)]
    InvalidInput(#[from] InvalidInput),
}

/// Returns the id of the standard plan.
#[must_use]
pub fn standard() -> Uuid {
    Uuid::new_v5(&SERVICE_NAMESPACE, b"standard")
}

/// Checks that operators manage a plan, not the service.
///
/// # Errors
/// [`PlanError::Standard`].
pub fn require_operator_managed(plan: Uuid) -> Result<(), PlanError> {
    if plan == standard() { Err(PlanError::Standard) } else { Ok(()) }
}

impl PlanDefinition {
    /// Validates the definition.
    ///
    /// # Errors
    /// [`InvalidInput`] with the place.
    pub fn plan(&self, key: PlanVersion) -> Result<Plan, InvalidInput> {
        text("name", &self.name)?;
        let currency: Currency =
            self.currency.parse().map_err(|error: UnknownCurrency| InvalidInput::new("currency", error))?;
        let charges = charges(&self.charges).map_err(|error| error.within("charges"))?;
        let minimum = self.minimum.clone().unwrap_or_else(Decimal::zero);
        Amount::from_decimal(&minimum, currency)
            .map_err(|error: ExcessPrecision| InvalidInput::new("minimum", error))?;
        let tax_percent = percent("tax_percent", self.tax_percent.as_ref())?;
        Ok(Plan { currency, split: self.split, minimum, tax_percent, ..Plan::new(key, currency, charges) })
    }
}

impl PlanCatalogue {
    /// Returns whether the plan has a version.
    #[must_use]
    pub fn exists(&self) -> bool {
        !self.versions.is_empty()
    }

    /// Returns the reason of the retirement, or `None` for an open plan.
    #[must_use]
    pub fn retired(&self) -> Option<&str> {
        self.retired.as_deref()
    }

    /// Lists the published versions, starting with version 1.
    #[must_use]
    pub fn versions(&self) -> &[PlanPublished] {
        &self.versions
    }

    /// Returns a version, also of a retired plan.
    ///
    /// # Errors
    /// [`PlanError::NotFound`] or [`PlanError::NoSuchVersion`].
    pub fn version(&self, plan: Uuid, version: u32) -> Result<Plan, PlanError> {
        if !self.exists() {
            return Err(PlanError::NotFound);
        }
        let index = usize::try_from(version).ok().and_then(|number| number.checked_sub(1));
        let published = index.and_then(|index| self.versions.get(index));
        let published = published.ok_or(PlanError::NoSuchVersion { version })?;
        let definition = PlanDefinition::try_from(published)?;
        Ok(definition.plan(PlanVersion { plan: plan.to_string(), version })?)
    }

    /// Checks that new accounts may use the plan.
    ///
    /// # Errors
    /// [`PlanError::NotFound`] or [`PlanError::Retired`].
    pub fn require_open(&self) -> Result<(), PlanError> {
        match &self.retired {
            _ if !self.exists() => Err(PlanError::NotFound),
            Some(reason) => Err(PlanError::Retired { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    fn publish(&self, definition: &PlanDefinition) -> Result<Vec<PlanEvent>, PlanError> {
        if let Some(reason) = &self.retired {
            return Err(PlanError::Retired { reason: reason.clone() });
        }
        if self.versions.len() >= MAX_VERSIONS {
            return Err(PlanError::TooManyVersions);
        }
        definition.plan(PlanVersion { plan: String::new(), version: 0 })?;
        let number = i32::try_from(self.versions.len() + 1).map_err(|_| PlanError::TooManyVersions)?;
        Ok(vec![published(definition, number).into()])
    }

    fn publish_if_changed(&self, definition: &PlanDefinition) -> Result<Vec<PlanEvent>, PlanError> {
        match self.versions.last() {
            Some(last) if self.retired.is_none() && *last == published(definition, last.plan_version) => Ok(vec![]),
            _ => self.publish(definition),
        }
    }
}

fn published(definition: &PlanDefinition, plan_version: i32) -> PlanPublished {
    let text = |decimal: &Option<Decimal>| decimal.as_ref().map(ToString::to_string);
    PlanPublished {
        plan_version,
        name: definition.name.trim().to_owned(),
        currency: definition.currency.clone(),
        split: definition.split.as_str().to_owned(),
        charges: definition.charges.iter().map(contract::Charge::from).collect(),
        minimum: text(&definition.minimum),
        tax_percent: text(&definition.tax_percent),
    }
}

impl TryFrom<&PlanPublished> for PlanDefinition {
    type Error = InvalidInput;

    fn try_from(published: &PlanPublished) -> Result<Self, InvalidInput> {
        let mut charges = Vec::new();
        for (index, charge) in published.charges.iter().enumerate() {
            let definition = ChargeDefinition::try_from(charge);
            charges.push(definition.map_err(|error| error.within(&format!("charges[{index}]")))?);
        }
        Ok(Self {
            name: published.name.clone(),
            currency: published.currency.clone(),
            split: SharingRule::parse(&published.split)?,
            charges,
            minimum: decimal("minimum", published.minimum.as_deref())?,
            tax_percent: decimal("tax_percent", published.tax_percent.as_deref())?,
        })
    }
}

impl From<&ChargeDefinition> for contract::Charge {
    fn from(charge: &ChargeDefinition) -> Self {
        let text = |decimal: &Option<Decimal>| decimal.as_ref().map(ToString::to_string);
        let tier = |tier: &TierDefinition| contract::Tier {
            up_to: text(&tier.up_to),
            unit_price: tier.unit_price.to_string(),
            flat_fee: text(&tier.flat_fee),
        };
        Self {
            meter: charge.meter.clone(),
            unit: charge.unit.clone(),
            model: charge.model.clone(),
            tiers: charge.tiers.as_ref().map(|tiers| tiers.iter().map(tier).collect()),
            unit_price: text(&charge.unit_price),
            free: text(&charge.free),
            package_size: text(&charge.package_size),
            package_price: text(&charge.package_price),
        }
    }
}

impl TryFrom<&contract::Charge> for ChargeDefinition {
    type Error = InvalidInput;

    fn try_from(charge: &contract::Charge) -> Result<Self, InvalidInput> {
        let mut tiers = None;
        for tier in charge.tiers.iter().flatten() {
            tiers.get_or_insert_with(Vec::new).push(TierDefinition {
                up_to: decimal("up_to", tier.up_to.as_deref())?,
                unit_price: required("unit_price", &tier.unit_price)?,
                flat_fee: decimal("flat_fee", tier.flat_fee.as_deref())?,
            });
        }
        Ok(Self {
            meter: charge.meter.clone(),
            unit: charge.unit.clone(),
            model: charge.model.clone(),
            tiers,
            unit_price: decimal("unit_price", charge.unit_price.as_deref())?,
            free: decimal("free", charge.free.as_deref())?,
            package_size: decimal("package_size", charge.package_size.as_deref())?,
            package_price: decimal("package_price", charge.package_price.as_deref())?,
        })
    }
}

fn required(place: &'static str, text: &str) -> Result<Decimal, InvalidInput> {
    text.parse().map_err(|error: InvalidDecimal| InvalidInput::new(place, error))
}

fn decimal(place: &'static str, text: Option<&str>) -> Result<Option<Decimal>, InvalidInput> {
    text.map(|text| required(place, text)).transpose()
}

impl Aggregate for PlanCatalogue {
    const NAME: &'static str = contract::AGGREGATE;
    type Command = PlanCommand;
    type Event = PlanEvent;
    type Error = PlanError;

    fn decide(&self, command: &PlanCommand) -> Result<Vec<PlanEvent>, PlanError> {
        match command {
            PlanCommand::Publish(definition) => self.publish(definition),
            PlanCommand::PublishIfChanged(definition) => self.publish_if_changed(definition),
            PlanCommand::Retire { .. } if !self.exists() => Err(PlanError::NotFound),
            PlanCommand::Retire { .. } if self.retired.is_some() => Ok(vec![]),
            PlanCommand::Retire { reason } => {
                text("reason", reason)?;
                Ok(vec![PlanRetired { reason: reason.trim().to_owned() }.into()])
            }
        }
    }

    fn evolve(&mut self, event: &PlanEvent) {
        match event {
            PlanEvent::PlanPublished(published) => self.versions.push(published.clone()),
            PlanEvent::PlanRetired(retired) => self.retired = Some(retired.reason.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
