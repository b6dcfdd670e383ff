//! The billing account aggregate: the plan, price overrides, discount, credit and budget of an organization.
//!
//! An account is pinned to a version of a plan from its opening until another version is assigned. Publishing
//! a newer version of the plan changes nothing for it. Terms of an invoiced period are fixed while the
//! invoice is active ([`decide`]). Each threshold of a budget raises one alert a month for the actual amount
//! and one for the forecast ([`budget`]).

mod budget;
mod command;
mod decide;
mod pin;

pub use command::{AccountCommand, AccountError};
pub use pin::{BEGINNING, Pin};

use std::collections::{BTreeMap, BTreeSet};

use contracts::{
    billing_account::{BudgetSet, UsageMetered},
    plan::Charge as ChargeContract,
};
use epoch::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    calendar::month::Month,
    money::{amount::Amount, currency::Currency, decimal::Decimal},
    pricing::{components::ChargeDefinition, price_model::Charge},
    validation::InvalidInput,
};
use budget::{Spending, USED_UP};

/// A billing account. Its id is the id of its organization.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// `None` before the account is opened.
    currency: Option<String>,
    /// Time zone names by the first month each applies to.
    zones: BTreeMap<String, String>,
    /// Plan versions by the instant each applies from, in milliseconds.
    pins: BTreeMap<i64, Pin>,
    /// Notices of scheduled plan changes, by the instant the change applies from.
    notices: BTreeMap<i64, String>,
    /// Price overrides by meter, then by the instant each applies from, in milliseconds. `None` restores the
    /// price of the plan.
    overrides: BTreeMap<String, BTreeMap<i64, Option<ChargeContract>>>,
    discount_percent: Option<String>,
    credits: Vec<String>,
    /// Active invoices and the credit each one consumed.
    invoices: BTreeMap<Uuid, IssuedInvoice>,
    spending: Spending,
    metered: Option<UsageMetered>,
}

/// An active (finalized, not void) invoice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedInvoice {
    /// The exclusive end of the invoiced period.
    pub end: Timestamp,
    /// The amount of credit the invoice consumed.
    credit_used: String,
}

impl Account {
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.currency.is_some()
    }

    /// Returns the currency of the account.
    ///
    /// # Errors
    /// [`AccountError::NotFound`] before the account is opened.
    pub fn currency(&self) -> Result<Currency, AccountError> {
        let code = self.currency.as_deref().ok_or(AccountError::NotFound)?;
        code.parse().map_err(|error| InvalidInput::new("currency", error).into())
    }

    /// Returns the name of the IANA time zone that applies to a month.
    #[must_use]
    pub fn time_zone(&self, month: Month) -> &str {
        let month = month.to_string();
        let held = self.zones.iter().take_while(|(from, _)| **from <= month).last();
        held.map_or("UTC", |(_, name)| name)
    }

    /// Lists the pinned plan versions with the instant each applies from.
    pub fn pins(&self) -> impl Iterator<Item = (Timestamp, Pin)> + '_ {
        self.pins.iter().map(|(from, pin)| (Timestamp::from_millis(*from), *pin))
    }

    /// Returns the notice given for the plan change at `from`, if the change was scheduled.
    #[must_use]
    pub fn notice(&self, from: Timestamp) -> Option<&str> {
        self.notices.get(&from.as_millis()).map(String::as_str)
    }

    /// Returns the instants at which the plan or a price override changes, in order.
    #[must_use]
    pub fn changes(&self) -> BTreeSet<Timestamp> {
        let overrides = self.overrides.values().flat_map(BTreeMap::keys);
        self.pins.keys().chain(overrides).map(|from| Timestamp::from_millis(*from)).collect()
    }

    /// Returns the plan version that applies at an instant.
    #[must_use]
    pub fn pin_at(&self, at: Timestamp) -> Option<Pin> {
        self.pins.range(..=at.as_millis()).next_back().map(|(_, pin)| *pin)
    }

    /// Returns the price overrides that apply at an instant.
    ///
    /// # Errors
    /// [`InvalidInput`] when a stored override cannot be parsed.
    pub fn price_overrides_at(&self, at: Timestamp) -> Result<Vec<Charge>, InvalidInput> {
        let mut overrides = Vec::new();
        for by_instant in self.overrides.values() {
            if let Some((_, Some(charge))) = by_instant.range(..=at.as_millis()).next_back() {
                overrides.push(ChargeDefinition::try_from(charge)?.charge()?);
            }
        }
        Ok(overrides)
    }

    /// Returns the discount on each subtotal, in percent.
    #[must_use]
    pub fn discount_percent(&self) -> Decimal {
        let percent = self.discount_percent.as_deref().and_then(|percent| percent.parse().ok());
        percent.unwrap_or_else(Decimal::zero)
    }

    /// Returns the active invoices by id.
    #[must_use]
    pub fn invoices(&self) -> &BTreeMap<Uuid, IssuedInvoice> {
        &self.invoices
    }

    /// Returns the exclusive end of the last invoiced period, over active invoices.
    #[must_use]
    pub fn invoiced_until(&self) -> Option<Timestamp> {
        self.invoices.values().map(|issued| issued.end).max()
    }

    /// Returns the credit that was granted and is not consumed yet.
    ///
    /// # Errors
    /// [`AccountError::NotFound`] before the account is opened, [`InvalidInput`] when a stored amount cannot
    /// be parsed.
    pub fn credit(&self) -> Result<Amount, AccountError> {
        let currency = self.currency()?;
        let mut credit = Amount::zero(currency);
        for granted in &self.credits {
            let granted: Decimal = granted.parse().map_err(|error| InvalidInput::new("credits", error))?;
            credit = credit
                .plus(&Amount::from_decimal(&granted, currency).map_err(|error| InvalidInput::new("credits", error))?);
        }
        for issued in self.invoices.values() {
            let used =
                Amount::parse(&issued.credit_used, currency).map_err(|error| InvalidInput::new("invoices", error))?;
            credit = credit.minus(&used);
        }
        Ok(credit)
    }

    /// Returns the usage totals that were recorded last.
    #[must_use]
    pub fn metered(&self) -> Option<&UsageMetered> {
        self.metered.as_ref()
    }

    #[must_use]
    pub fn budget(&self) -> Option<&BudgetSet> {
        self.spending.budget.as_ref()
    }

    /// Returns whether a budget was set before an instant and still applies.
    #[must_use]
    pub fn had_budget(&self, before: Timestamp) -> bool {
        let had = |set_at: Option<Timestamp>| set_at.is_none_or(|set_at| set_at < before);
        self.budget().is_some_and(|budget| budget.amount.is_some() && had(budget.set_at))
    }

    /// Lists the alerts raised so far as month, kind and threshold in percent.
    pub fn alerts(&self) -> impl Iterator<Item = &(String, String, i32)> {
        self.spending.raised.iter()
    }

    /// Returns whether new jobs may be queued in a month.
    #[must_use]
    pub fn jobs_allowed(&self, month: Month) -> bool {
        let stops = self.budget().is_some_and(|budget| budget.hard_stop && budget.amount.is_some());
        !stops || !self.spending.raised.contains(&(month.to_string(), "actual".to_owned(), USED_UP))
    }
}
