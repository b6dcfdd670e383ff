//! The aggregate behind a billing account: what an organization is charged by, and what it wants to spend.
//!
//! The problem: what was promised to a customer must be known for every instant, and a budget's alert must neither be missed nor
//! come twice.
//!
//! The invariant: an account is pinned to a version of a plan from its opening on, for all that it ever used, until it is pinned to
//! another; new versions of a plan change nothing for it. What has been invoiced is not charged otherwise any more, as long as the
//! invoice counts ([`decide`]), and each threshold of a budget is said once a month for what was used and once for what is forecast
//! ([`budget`]).

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
    validation::Refused,
};
use budget::{Spending, USED_UP};

/// A billing account; its id is its organization's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// None before it is opened.
    currency: Option<String>,
    /// By the first month of each.
    zones: BTreeMap<String, String>,
    /// By the first instant of each, in milliseconds.
    pins: BTreeMap<i64, Pin>,
    /// What the customer was told of a pin that was scheduled, by its first instant.
    notices: BTreeMap<i64, String>,
    /// By meter, then by the first instant of each, in milliseconds; `None` is what the plan says.
    overrides: BTreeMap<String, BTreeMap<i64, Option<ChargeContract>>>,
    discount_percent: Option<String>,
    credits: Vec<String>,
    /// What each invoice that counts used up of the credit.
    invoices: BTreeMap<Uuid, Issued>,
    spending: Spending,
    metered: Option<UsageMetered>,
}

/// An invoice that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// The first instant after its period.
    pub end: Timestamp,
    /// What of the credit it used up.
    credit_used: String,
}

impl Account {
    /// Whether it has been opened.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.currency.is_some()
    }

    /// Its currency.
    ///
    /// # Errors
    /// [`AccountError::NotFound`].
    pub fn currency(&self) -> Result<Currency, AccountError> {
        let code = self.currency.as_deref().ok_or(AccountError::NotFound)?;
        code.parse().map_err(|error| Refused::new("currency", error).into())
    }

    /// The name of the IANA time zone that holds for a month.
    #[must_use]
    pub fn time_zone(&self, month: Month) -> &str {
        let month = month.to_string();
        let held = self.zones.iter().take_while(|(from, _)| **from <= month).last();
        held.map_or("UTC", |(_, name)| name)
    }

    /// What it is pinned to, by the first instant.
    pub fn pins(&self) -> impl Iterator<Item = (Timestamp, Pin)> + '_ {
        self.pins.iter().map(|(from, pin)| (Timestamp::from_millis(*from), *pin))
    }

    /// What the customer was told of the pin that begins at an instant, if it was scheduled.
    #[must_use]
    pub fn notice(&self, from: Timestamp) -> Option<&str> {
        self.notices.get(&from.as_millis()).map(String::as_str)
    }

    /// The instants at which what it is charged by changes, in order.
    #[must_use]
    pub fn changes(&self) -> BTreeSet<Timestamp> {
        let overrides = self.overrides.values().flat_map(BTreeMap::keys);
        self.pins.keys().chain(overrides).map(|from| Timestamp::from_millis(*from)).collect()
    }

    /// What it is pinned to at an instant.
    #[must_use]
    pub fn pin_at(&self, at: Timestamp) -> Option<Pin> {
        self.pins.range(..=at.as_millis()).next_back().map(|(_, pin)| *pin)
    }

    /// Its own prices at an instant.
    ///
    /// # Errors
    /// [`Refused`] when one was written that can't be read.
    pub fn own_charges_at(&self, at: Timestamp) -> Result<Vec<Charge>, Refused> {
        let mut own = Vec::new();
        for by_instant in self.overrides.values() {
            if let Some((_, Some(charge))) = by_instant.range(..=at.as_millis()).next_back() {
                own.push(ChargeDefinition::try_from(charge)?.charge()?);
            }
        }
        Ok(own)
    }

    /// Hundredths that are taken off each subtotal.
    #[must_use]
    pub fn discount_percent(&self) -> Decimal {
        let percent = self.discount_percent.as_deref().and_then(|percent| percent.parse().ok());
        percent.unwrap_or_else(Decimal::zero)
    }

    /// Its invoices that count, by id.
    #[must_use]
    pub fn invoices(&self) -> &BTreeMap<Uuid, Issued> {
        &self.invoices
    }

    /// The first instant after all that has been invoiced, by the invoices that count.
    #[must_use]
    pub fn invoiced_until(&self) -> Option<Timestamp> {
        self.invoices.values().map(|issued| issued.end).max()
    }

    /// The credit that was granted and not used up.
    ///
    /// # Errors
    /// As [`Account::currency`].
    pub fn credit(&self) -> Result<Amount, AccountError> {
        let currency = self.currency()?;
        let mut credit = Amount::zero(currency);
        for granted in &self.credits {
            let granted: Decimal = granted.parse().map_err(|error| Refused::new("credits", error))?;
            credit = credit.plus(&Amount::given(&granted, currency).map_err(|error| Refused::new("credits", error))?);
        }
        for issued in self.invoices.values() {
            let used = Amount::read(&issued.credit_used, currency).map_err(|error| Refused::new("invoices", error))?;
            credit = credit.minus(&used);
        }
        Ok(credit)
    }

    /// What it has used in all, as last recorded.
    #[must_use]
    pub fn metered(&self) -> Option<&UsageMetered> {
        self.metered.as_ref()
    }

    /// Its budget.
    #[must_use]
    pub fn budget(&self) -> Option<&BudgetSet> {
        self.spending.budget.as_ref()
    }

    /// Whether it has a budget, and had it before an instant.
    #[must_use]
    pub fn had_budget(&self, before: Timestamp) -> bool {
        let had = |set_at: Option<Timestamp>| set_at.is_none_or(|set_at| set_at < before);
        self.budget().is_some_and(|budget| budget.amount.is_some() && had(budget.set_at))
    }

    /// What was said of its budget: month, kind and threshold.
    pub fn said(&self) -> impl Iterator<Item = &(String, String, i32)> {
        self.spending.said.iter()
    }

    /// Whether new jobs may be queued in a month.
    #[must_use]
    pub fn jobs_allowed(&self, month: Month) -> bool {
        let stops = self.budget().is_some_and(|budget| budget.hard_stop && budget.amount.is_some());
        !stops || !self.spending.said.contains(&(month.to_string(), "actual".to_owned(), USED_UP))
    }
}
