//! The aggregate behind a plan: its versions.
//!
//! The problem: a price that changes under a customer is a broken promise, and a plan that goes away must not take the bills of
//! those who have it with it.
//!
//! The invariant: a version never changes once it is published, and can be read for ever. A plan that is retired gets no new
//! versions and no new customers; whoever has it keeps it.
//!
//! One plan is the service's own, [`standard`]: the installation's prices. A version of it is published when an account is opened and
//! the prices are others than those of its last version; operators can neither publish nor retire it, since accounts are opened by it.

use contracts::plan::{self as contract, PlanEvent, PlanPublished, PlanRetired};
use epoch::Aggregate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    money::{
        amount::{Amount, TooFine},
        currency::{Currency, UnknownCurrency},
        decimal::{Decimal, NotADecimal},
    },
    pricing::{
        components::{ChargeDefinition, TierDefinition, charges},
        plan::{Plan, PlanVersion},
    },
    sharing::rule::Rule,
    validation::{Refused, percent, text},
};

/// The most versions of a plan.
const MAX_VERSIONS: usize = 10_000;
/// What ids of the service's own plans are made in.
const OWN: Uuid = Uuid::from_u128(0x0b1c_53f4_6d0f_4f0e_9a4e_7c19_27d4_a1e5);
/// A plan's versions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanCatalogue {
    versions: Vec<PlanPublished>,
    retired: Option<String>,
}

/// A version to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanDefinition {
    /// What people call the plan.
    pub name: String,
    /// What all prices are in.
    pub currency: String,
    /// How files are shared by the jobs that use them.
    pub split: Rule,
    /// What each meter costs.
    pub charges: Vec<ChargeDefinition>,
    /// What a month costs at least, before tax.
    pub minimum: Option<Decimal>,
    /// Hundredths that are put on as tax.
    pub tax_percent: Option<Decimal>,
}

/// What a plan can be asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanCommand {
    /// Get a new version.
    Publish(PlanDefinition),
    /// Get a new version if this isn't its last one.
    Offer(PlanDefinition),
    /// Take no new customers.
    Retire {
        /// Why.
        reason: String,
    },
}

/// Why a plan says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// There is no such plan.
    #[error("the plan does not exist")]
    NotFound,
    /// There is no such version.
    #[error("the plan has no version {version}")]
    NoSuchVersion {
        /// Which.
        version: u32,
    },
    /// It is retired.
    #[error("the plan is retired: {reason}")]
    Retired {
        /// Why.
        reason: String,
    },
    /// It is the service's own.
    #[error("the standard plan is the installation's prices, by which accounts are opened: it follows the settings")]
    Standard,
    /// It has too many versions.
    #[error("a plan has at most {MAX_VERSIONS} versions")]
    TooManyVersions,
    /// Something about the version can't be used.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// The plan of the installation's prices, which accounts are opened by.
#[must_use]
pub fn standard() -> Uuid {
    Uuid::new_v5(&OWN, b"standard")
}

/// Checks that operators decide about a plan.
///
/// # Errors
/// [`PlanError::Standard`].
pub fn require_operators_own(plan: Uuid) -> Result<(), PlanError> {
    if plan == standard() { Err(PlanError::Standard) } else { Ok(()) }
}

impl PlanDefinition {
    /// The plan that is meant.
    ///
    /// # Errors
    /// [`Refused`] with the place.
    pub fn plan(&self, key: PlanVersion) -> Result<Plan, Refused> {
        text("name", &self.name)?;
        let currency: Currency =
            self.currency.parse().map_err(|error: UnknownCurrency| Refused::new("currency", error))?;
        let charges = charges(&self.charges).map_err(|refused| refused.within("charges"))?;
        let minimum = self.minimum.clone().unwrap_or_else(Decimal::zero);
        Amount::given(&minimum, currency).map_err(|error: TooFine| Refused::new("minimum", error))?;
        let tax_percent = percent("tax_percent", self.tax_percent.as_ref())?;
        Ok(Plan { currency, split: self.split, minimum, tax_percent, ..Plan::new(key, currency, charges) })
    }
}

impl PlanCatalogue {
    /// Whether it has a version.
    #[must_use]
    pub fn exists(&self) -> bool {
        !self.versions.is_empty()
    }

    /// Why it takes no new customers, if it doesn't.
    #[must_use]
    pub fn retired(&self) -> Option<&str> {
        self.retired.as_deref()
    }

    /// Its versions, from 1 on, as they were published.
    #[must_use]
    pub fn versions(&self) -> &[PlanPublished] {
        &self.versions
    }

    /// A version, whether it is retired or not.
    ///
    /// # Errors
    /// [`PlanError::NotFound`] and [`PlanError::NoSuchVersion`].
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

    /// Checks that customers can get the plan.
    ///
    /// # Errors
    /// [`PlanError::NotFound`] and [`PlanError::Retired`].
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

    fn offer(&self, definition: &PlanDefinition) -> Result<Vec<PlanEvent>, PlanError> {
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
    type Error = Refused;

    fn try_from(published: &PlanPublished) -> Result<Self, Refused> {
        let mut charges = Vec::new();
        for (index, charge) in published.charges.iter().enumerate() {
            let definition = ChargeDefinition::try_from(charge);
            charges.push(definition.map_err(|refused| refused.within(&format!("charges[{index}]")))?);
        }
        Ok(Self {
            name: published.name.clone(),
            currency: published.currency.clone(),
            split: Rule::named(&published.split)?,
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
    type Error = Refused;

    fn try_from(charge: &contract::Charge) -> Result<Self, Refused> {
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

fn required(place: &'static str, text: &str) -> Result<Decimal, Refused> {
    text.parse().map_err(|error: NotADecimal| Refused::new(place, error))
}

fn decimal(place: &'static str, text: Option<&str>) -> Result<Option<Decimal>, Refused> {
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
            PlanCommand::Offer(definition) => self.offer(definition),
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
mod tests {
    use epoch::Aggregate;
    use uuid::Uuid;

    use super::{PlanCatalogue, PlanCommand, PlanDefinition, PlanError};
    use crate::{pricing::meter::Meter, sharing::rule::Rule};

    fn definition(price: &str) -> PlanDefinition {
        let charges = format!(
            r#"[{{"meter":"compute","unit":"s","model":"flat","unit_price":"{price}"}},
            {{"meter":"storage","unit":"GB.h","model":"volume","tiers":[{{"up_to":"5","unit_price":"1","flat_fee":"2"}},{{"up_to":null,"unit_price":"0.5"}}]}}]"#
        );
        PlanDefinition {
            name: "Team".to_owned(),
            currency: "EUR".to_owned(),
            split: Rule::UnsharedOnly,
            charges: serde_json::from_str(&charges).unwrap(),
            minimum: Some("5".parse().unwrap()),
            tax_percent: Some("21".parse().unwrap()),
        }
    }

    fn apply(plan: &mut PlanCatalogue, command: &PlanCommand) -> Result<usize, PlanError> {
        let events = plan.decide(command)?;
        events.iter().for_each(|event| plan.evolve(event));
        Ok(events.len())
    }

    #[test]
    fn a_version_stays_as_it_was_published() {
        let (mut plan, id) = (PlanCatalogue::default(), Uuid::now_v7());
        assert_eq!(plan.version(id, 1), Err(PlanError::NotFound));
        apply(&mut plan, &PlanCommand::Publish(definition("1"))).unwrap();
        let first = plan.version(id, 1).unwrap();
        apply(&mut plan, &PlanCommand::Publish(definition("2"))).unwrap();
        assert_eq!(plan.version(id, 1).unwrap(), first);
        assert_ne!(plan.version(id, 2).unwrap().charges[&Meter::Compute], first.charges[&Meter::Compute]);
        assert_eq!(first.charges, definition("1").plan(first.key.clone()).unwrap().charges);
        assert_eq!(
            (first.split, first.minimum.to_string(), first.tax_percent.to_string()),
            (Rule::UnsharedOnly, "5".to_owned(), "21".to_owned())
        );
        for version in [0, 3] {
            assert_eq!(plan.version(id, version), Err(PlanError::NoSuchVersion { version }));
        }
    }

    #[test]
    fn what_is_offered_is_published_when_it_is_new() {
        let mut plan = PlanCatalogue::default();
        let mut offer = |price| apply(&mut plan, &PlanCommand::Offer(definition(price)));
        assert_eq!((offer("1"), offer("1.00"), offer("2"), offer("2")), (Ok(1), Ok(0), Ok(1), Ok(0)));
        assert_eq!((offer("1"), plan.versions().len()), (Ok(1), 3), "what comes again is a version, too");
    }

    #[test]
    fn who_has_a_retired_plan_keeps_it() {
        let (mut plan, id) = (PlanCatalogue::default(), Uuid::now_v7());
        let retire = PlanCommand::Retire { reason: "sold out".to_owned() };
        assert_eq!(apply(&mut plan, &retire), Err(PlanError::NotFound));
        apply(&mut plan, &PlanCommand::Publish(definition("1"))).unwrap();
        assert_eq!((plan.require_open(), apply(&mut plan, &retire), apply(&mut plan, &retire)), (Ok(()), Ok(1), Ok(0)));
        assert!(plan.version(id, 1).is_ok());
        let retired = PlanError::Retired { reason: "sold out".to_owned() };
        assert_eq!(plan.require_open(), Err(retired.clone()));
        for command in [PlanCommand::Publish(definition("1")), PlanCommand::Offer(definition("1"))] {
            assert_eq!(apply(&mut plan, &command), Err(retired.clone()));
        }
    }

    #[test]
    fn what_cannot_be_charged_is_not_published() {
        let refused = |change: fn(&mut PlanDefinition)| {
            let mut definition = definition("1");
            change(&mut definition);
            PlanCatalogue::default().decide(&PlanCommand::Publish(definition)).unwrap_err().to_string()
        };
        assert_eq!(refused(|plan| plan.name = " ".into()), "name: is empty");
        assert!(refused(|plan| plan.currency = "EURO".into()).starts_with("currency: \"EURO\""));
        assert!(refused(|plan| plan.minimum = Some("0.001".parse().unwrap())).starts_with("minimum: 0.001 is finer"));
        assert_eq!(refused(|plan| plan.tax_percent = Some(101.into())), "tax_percent: is more than 100");
        assert!(refused(|plan| plan.charges[1].tiers = None).starts_with("charges[1].tiers: is missing"));
    }
}
