//! The aggregate behind a billing account: what an organization is charged by, and what it wants to spend.
//!
//! The problem: what was promised to a customer must be known for every instant, and a budget's alert must neither be missed nor
//! come twice.
//!
//! The invariant: an account is pinned to a version of a plan from an instant on, until it is pinned to another; new versions of
//! a plan change nothing for it. Each threshold of a budget is said once a month for what was used and once for what is forecast.

use std::collections::{BTreeMap, BTreeSet};

use contracts::{
    billing_account::{
        AGGREGATE, AccountInvoiceVoided, AccountInvoiced, AccountOpened, AccountTimeZoneChanged, BillingAccountEvent,
        BudgetExceeded, BudgetSet, CreditGranted, DiscountGranted, PlanAssigned, PlanChangeScheduled, PriceOverridden,
        UsageMetered,
    },
    plan::Charge as ChargeContract,
};
use epoch::{Aggregate, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    catalogue::{percent, text},
    charge::Meter,
    currency::Currency,
    days::zone,
    decimal::Decimal,
    money::Amount,
    month::Month,
    plan::ChargeDefinition,
    refused::Refused,
};

/// The most thresholds of a budget.
const MAX_THRESHOLDS: usize = 20;
/// The threshold at which a budget is used up, in hundredths.
const USED_UP: i32 = 100;

/// A billing account; its id is its organization's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// None before it is opened.
    currency: Option<String>,
    /// By the first month of each.
    zones: BTreeMap<String, String>,
    /// By the first instant of each, in milliseconds.
    pins: BTreeMap<i64, Pin>,
    /// By meter, then by the first instant of each, in milliseconds; `None` is what the plan says.
    overrides: BTreeMap<String, BTreeMap<i64, Option<ChargeContract>>>,
    discount_percent: Option<String>,
    credits: Vec<String>,
    /// What each invoice that counts used up of the credit.
    invoices: BTreeMap<Uuid, Issued>,
    /// In milliseconds.
    invoiced_until: Option<i64>,
    budget: Option<BudgetSet>,
    said: BTreeSet<(String, String, i32)>,
    metered: Option<UsageMetered>,
}

/// A version of a plan that an account is pinned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pin {
    /// The plan.
    pub plan: Uuid,
    /// Its version.
    pub version: u32,
}

/// An invoice that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// The first instant after its period.
    pub end: Timestamp,
    /// What of the credit it used up.
    credit_used: String,
}

/// What an account can be asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountCommand {
    /// Come to be.
    Open {
        /// What everything is charged in.
        currency: Currency,
        /// The IANA time zone of its days and months.
        time_zone: String,
    },
    /// Take another time zone.
    ChangeTimeZone {
        /// The IANA time zone.
        time_zone: String,
        /// The first month that is one of this zone.
        from: Month,
        /// The month that is under way, which keeps its zone.
        current: Month,
    },
    /// Be charged by a version of a plan.
    AssignPlan {
        /// Which.
        pin: Pin,
        /// The plan's currency.
        currency: Currency,
        /// From when on.
        from: Timestamp,
    },
    /// Be charged by another version or plan later.
    SchedulePlanChange {
        /// Which.
        pin: Pin,
        /// The plan's currency.
        currency: Currency,
        /// From when on.
        from: Timestamp,
        /// Now; the change lies after it.
        now: Timestamp,
        /// What the customer is told.
        notice: String,
    },
    /// Have a price of its own.
    OverridePrice {
        /// For what.
        meter: Meter,
        /// The price; `None` for what the plan says.
        charge: Option<ChargeDefinition>,
        /// From when on.
        from: Timestamp,
    },
    /// Have a part of each subtotal taken off.
    GrantDiscount {
        /// Hundredths.
        percent: Decimal,
        /// Why.
        reason: String,
    },
    /// Use up an amount before it pays.
    GrantCredit {
        /// How much.
        amount: Decimal,
        /// Why.
        reason: String,
    },
    /// Remember what was used up to the end of a day.
    RecordUsage(UsageMetered),
    /// Spend no more in a month.
    SetBudget {
        /// How much; `None` for no budget.
        amount: Option<Decimal>,
        /// At how many hundredths of it an alert is due.
        thresholds: Vec<i32>,
        /// Whether no new job is queued once it is used up.
        hard_stop: bool,
    },
    /// Remember that a period was invoiced.
    Invoiced {
        /// The invoice.
        invoice: Uuid,
        /// The first instant after the period.
        end: Timestamp,
        /// What of the credit it used up.
        credit_used: Amount,
    },
    /// Forget an invoice, and take back what credit it used up.
    InvoiceVoided {
        /// The invoice.
        invoice: Uuid,
    },
    /// Say which thresholds are reached.
    CheckBudget {
        /// The month.
        month: Month,
        /// What has been used.
        actual: Amount,
        /// What will have been used at the month's end.
        forecast: Amount,
    },
}

/// Why an account says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// There is no such account.
    #[error("the account does not exist")]
    NotFound,
    /// There is one already.
    #[error("the account exists already")]
    AlreadyExists,
    /// The plan is in another currency.
    #[error("the account is in {account}, and the plan is in {plan}")]
    OtherCurrency {
        /// The account's.
        account: String,
        /// The plan's.
        plan: &'static str,
    },
    /// What has been invoiced stays as it is.
    #[error("everything up to {invoiced_until} has been invoiced, and {from} lies before it")]
    Invoiced {
        /// From when on.
        from: Timestamp,
        /// Until when.
        invoiced_until: Timestamp,
    },
    /// Something can't be used.
    #[error(transparent)]
    Refused(#[from] Refused),
}

type Decision = Result<Vec<BillingAccountEvent>, AccountError>;

impl Account {
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
    pub fn own_charges_at(&self, at: Timestamp) -> Result<Vec<super::charge::Charge>, Refused> {
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

    /// Its budget.
    #[must_use]
    pub fn budget(&self) -> Option<&BudgetSet> {
        self.budget.as_ref()
    }

    /// What was said of its budget: month, kind and threshold.
    pub fn said(&self) -> impl Iterator<Item = &(String, String, i32)> {
        self.said.iter()
    }

    /// What it has used in all, as last recorded.
    #[must_use]
    pub fn metered(&self) -> Option<&UsageMetered> {
        self.metered.as_ref()
    }

    /// Whether new jobs may be queued in a month.
    #[must_use]
    pub fn jobs_allowed(&self, month: Month) -> bool {
        let stops = self.budget.as_ref().is_some_and(|budget| budget.hard_stop && budget.amount.is_some());
        !stops || !self.said.contains(&(month.to_string(), "actual".to_owned(), USED_UP))
    }

    fn assign(&self, currency: Currency, from: Timestamp) -> Result<(), AccountError> {
        let account = self.currency()?;
        if account != currency {
            return Err(AccountError::OtherCurrency { account: account.code().to_owned(), plan: currency.code() });
        }
        self.not_invoiced(from)
    }

    fn not_invoiced(&self, from: Timestamp) -> Result<(), AccountError> {
        match self.invoiced_until.map(Timestamp::from_millis) {
            Some(invoiced_until) if from < invoiced_until => Err(AccountError::Invoiced { from, invoiced_until }),
            _ => Ok(()),
        }
    }

    fn set_budget(&self, amount: Option<&Decimal>, thresholds: &[i32], hard_stop: bool) -> Decision {
        let currency = self.currency()?;
        if let Some(amount) = amount {
            let amount = Amount::given(amount, currency).map_err(|error| Refused::new("amount", error))?;
            if amount.is_zero() {
                return Err(Refused::new("amount", "is nothing; to have no budget, say null").into());
            }
        }
        let mut ascending: BTreeSet<i32> = thresholds.iter().copied().collect();
        if thresholds.len() > MAX_THRESHOLDS || ascending.iter().any(|threshold| !(1..=1_000).contains(threshold)) {
            let reason = format!("at most {MAX_THRESHOLDS} hundredths from 1 to 1000");
            return Err(Refused::new("thresholds", reason).into());
        }
        if hard_stop {
            ascending.insert(USED_UP);
        }
        let set = BudgetSet {
            amount: amount.map(ToString::to_string),
            thresholds: ascending.into_iter().collect(),
            hard_stop,
        };
        if self.budget.as_ref() == Some(&set) {
            return Ok(vec![]);
        }
        Ok(vec![set.into()])
    }

    fn check_budget(&self, month: Month, actual: &Amount, forecast: &Amount) -> Decision {
        let currency = self.currency()?;
        let Some(BudgetSet { amount: Some(amount), thresholds, .. }) = &self.budget else { return Ok(vec![]) };
        let budget: Decimal = amount.parse().map_err(|error| Refused::new("budget", error))?;
        let budget = Amount::given(&budget, currency).map_err(|error| Refused::new("budget", error))?;
        let mut events = Vec::new();
        for (kind, reached) in [("actual", actual), ("forecast", forecast)] {
            for threshold in thresholds {
                let due = budget.exact_percent(&Decimal::from(threshold.unsigned_abs()));
                let key = (month.to_string(), kind.to_owned(), *threshold);
                if reached.exact() < due || self.said.contains(&key) {
                    continue;
                }
                let exceeded = BudgetExceeded {
                    month: month.to_string(),
                    kind: kind.to_owned(),
                    threshold: *threshold,
                    amount: reached.to_string(),
                    budget: budget.to_string(),
                };
                events.push(exceeded.into());
            }
        }
        Ok(events)
    }
}

fn known_zone(name: &str) -> Result<String, Refused> {
    let zone = zone(name).map_err(|error| Refused::new("time_zone", error))?;
    Ok(zone.iana_name().unwrap_or("UTC").to_owned())
}

impl Aggregate for Account {
    const NAME: &'static str = AGGREGATE;
    type Command = AccountCommand;
    type Event = BillingAccountEvent;
    type Error = AccountError;

    fn decide(&self, command: &AccountCommand) -> Decision {
        if let AccountCommand::Open { currency, time_zone } = command {
            if self.currency.is_some() {
                return Err(AccountError::AlreadyExists);
            }
            let time_zone = known_zone(time_zone)?;
            return Ok(vec![AccountOpened { currency: currency.code().to_owned(), time_zone }.into()]);
        }
        let currency = self.currency()?;
        match command {
            AccountCommand::Open { .. } => Err(AccountError::AlreadyExists),
            AccountCommand::ChangeTimeZone { time_zone, from, current } => {
                if from <= current {
                    return Err(
                        Refused::new("from", format!("{current} is under way; {from} must lie after it")).into()
                    );
                }
                let time_zone = known_zone(time_zone)?;
                Ok(vec![AccountTimeZoneChanged { time_zone, from_month: from.to_string() }.into()])
            }
            AccountCommand::AssignPlan { pin, currency, from } => {
                self.assign(*currency, *from)?;
                let plan_version = number(pin.version)?;
                Ok(vec![PlanAssigned { plan_id: pin.plan, plan_version, from_at: *from }.into()])
            }
            AccountCommand::SchedulePlanChange { pin, currency, from, now, notice } => {
                self.assign(*currency, *from)?;
                if from <= now {
                    return Err(Refused::new("from", format!("{from} doesn't lie in the future")).into());
                }
                text("notice", notice)?;
                let (plan_version, notice) = (number(pin.version)?, notice.trim().to_owned());
                Ok(vec![PlanChangeScheduled { plan_id: pin.plan, plan_version, from_at: *from, notice }.into()])
            }
            AccountCommand::OverridePrice { meter, charge, from } => {
                self.not_invoiced(*from)?;
                if let Some(charge) = charge
                    && charge.charge().map_err(|refused| refused.within("charge"))?.meter() != *meter
                {
                    return Err(Refused::new("charge.meter", format!("is not {}", meter.as_str())).into());
                }
                let (meter, charge) = (meter.as_str().to_owned(), charge.as_ref().map(Into::into));
                Ok(vec![PriceOverridden { from_at: *from, meter, charge }.into()])
            }
            AccountCommand::GrantDiscount { percent: granted, reason } => {
                text("reason", reason)?;
                let percent = percent("percent", Some(granted))?.to_string();
                Ok(vec![DiscountGranted { percent, reason: reason.trim().to_owned() }.into()])
            }
            AccountCommand::GrantCredit { amount, reason } => {
                text("reason", reason)?;
                let amount = Amount::given(amount, currency).map_err(|error| Refused::new("amount", error))?;
                if amount.is_zero() {
                    return Err(Refused::new("amount", "is nothing").into());
                }
                Ok(vec![CreditGranted { amount: amount.to_string(), reason: reason.trim().to_owned() }.into()])
            }
            AccountCommand::RecordUsage(usage) => {
                let newer = self.metered.as_ref().is_none_or(|known| known.through_at < usage.through_at);
                Ok(if newer { vec![usage.clone().into()] } else { vec![] })
            }
            AccountCommand::SetBudget { amount, thresholds, hard_stop } => {
                self.set_budget(amount.as_ref(), thresholds, *hard_stop)
            }
            AccountCommand::Invoiced { invoice, end, credit_used } => {
                if self.invoices.contains_key(invoice) {
                    return Ok(vec![]);
                }
                let credit_used = credit_used.to_string();
                Ok(vec![AccountInvoiced { invoice_id: *invoice, end_at: *end, credit_used }.into()])
            }
            AccountCommand::InvoiceVoided { invoice } => {
                let Some(issued) = self.invoices.get(invoice) else { return Ok(vec![]) };
                let credit_returned = issued.credit_used.clone();
                Ok(vec![AccountInvoiceVoided { invoice_id: *invoice, credit_returned }.into()])
            }
            AccountCommand::CheckBudget { month, actual, forecast } => self.check_budget(*month, actual, forecast),
        }
    }

    fn evolve(&mut self, event: &BillingAccountEvent) {
        match event {
            BillingAccountEvent::AccountOpened(opened) => {
                self.currency = Some(opened.currency.clone());
                self.zones.insert(String::new(), opened.time_zone.clone());
            }
            BillingAccountEvent::AccountTimeZoneChanged(changed) => {
                self.zones.insert(changed.from_month.clone(), changed.time_zone.clone());
            }
            BillingAccountEvent::PlanAssigned(event) => self.pin(event.from_at, event.plan_id, event.plan_version),
            BillingAccountEvent::PlanChangeScheduled(event) => {
                self.pin(event.from_at, event.plan_id, event.plan_version);
            }
            BillingAccountEvent::PriceOverridden(event) => {
                let by_instant = self.overrides.entry(event.meter.clone()).or_default();
                by_instant.insert(event.from_at.as_millis(), event.charge.clone());
            }
            BillingAccountEvent::DiscountGranted(event) => self.discount_percent = Some(event.percent.clone()),
            BillingAccountEvent::CreditGranted(event) => self.credits.push(event.amount.clone()),
            BillingAccountEvent::UsageMetered(event) => self.metered = Some(event.clone()),
            BillingAccountEvent::BudgetSet(event) => {
                // Another budget is said anew.
                if self.budget.as_ref().is_none_or(|budget| budget.amount != event.amount) {
                    self.said.clear();
                }
                self.budget = Some(event.clone());
            }
            BillingAccountEvent::AccountInvoiced(event) => {
                let issued = Issued { end: event.end_at, credit_used: event.credit_used.clone() };
                self.invoices.insert(event.invoice_id, issued);
                self.invoiced_until = self.invoiced_until.max(Some(event.end_at.as_millis()));
            }
            BillingAccountEvent::AccountInvoiceVoided(event) => {
                self.invoices.remove(&event.invoice_id);
            }
            BillingAccountEvent::BudgetExceeded(event) => {
                self.said.insert((event.month.clone(), event.kind.clone(), event.threshold));
            }
        }
    }
}

impl Account {
    fn pin(&mut self, from: Timestamp, plan: Uuid, version: i32) {
        self.pins.insert(from.as_millis(), Pin { plan, version: version.unsigned_abs() });
    }
}

fn number(version: u32) -> Result<i32, Refused> {
    i32::try_from(version).map_err(|error| Refused::new("version", error))
}

#[cfg(test)]
mod tests {
    use epoch::{Aggregate, Timestamp};
    use uuid::Uuid;

    use super::{Account, AccountCommand, AccountError, Pin};
    use crate::domain::{charge::Meter, currency::Currency, money::Amount, month::Month};

    fn euro() -> Currency {
        "EUR".parse().unwrap()
    }

    fn apply(account: &mut Account, command: &AccountCommand) -> Result<usize, AccountError> {
        let events = account.decide(command)?;
        events.iter().for_each(|event| account.evolve(event));
        Ok(events.len())
    }

    fn opened() -> Account {
        let mut account = Account::default();
        apply(&mut account, &AccountCommand::Open { currency: euro(), time_zone: "europe/madrid".into() }).unwrap();
        account
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn month(text: &str) -> Month {
        text.parse().unwrap()
    }

    fn amount(text: &str) -> Amount {
        Amount::given(&text.parse().unwrap(), euro()).unwrap()
    }

    #[test]
    fn is_opened_once() {
        let mut account = opened();
        assert_eq!(account.time_zone(month("2025-01")), "Europe/Madrid");
        let again = AccountCommand::Open { currency: euro(), time_zone: "UTC".into() };
        assert_eq!(apply(&mut account, &again), Err(AccountError::AlreadyExists));
        let nowhere = AccountCommand::Open { currency: euro(), time_zone: "Europe/Nowhere".into() };
        assert!(Account::default().decide(&nowhere).unwrap_err().to_string().starts_with("time_zone: there is no"));
        let credit = AccountCommand::GrantCredit { amount: 1.into(), reason: "r".into() };
        assert_eq!(Account::default().decide(&credit), Err(AccountError::NotFound));
    }

    #[test]
    fn a_zone_holds_from_a_month_on() {
        let mut account = opened();
        let change = |from, current| AccountCommand::ChangeTimeZone {
            time_zone: "America/Havana".into(),
            from: month(from),
            current: month(current),
        };
        assert!(apply(&mut account, &change("2025-03", "2025-03")).is_err());
        apply(&mut account, &change("2025-04", "2025-03")).unwrap();
        assert_eq!(
            (account.time_zone(month("2025-03")), account.time_zone(month("2025-04"))),
            ("Europe/Madrid", "America/Havana")
        );
    }

    #[test]
    fn is_pinned_from_an_instant_on_and_not_before_what_was_invoiced() {
        let mut account = opened();
        let pin = Pin { plan: Uuid::now_v7(), version: 3 };
        let assign = |from| AccountCommand::AssignPlan { pin, currency: euro(), from: at(from) };
        let invoiced = AccountCommand::Invoiced { invoice: Uuid::nil(), end: at(10), credit_used: amount("0") };
        apply(&mut account, &invoiced).unwrap();
        assert!(matches!(apply(&mut account, &assign(9)), Err(AccountError::Invoiced { .. })));
        apply(&mut account, &assign(10)).unwrap();
        assert_eq!((account.pin_at(at(9)), account.pin_at(at(10))), (None, Some(pin)));
        let yen = AccountCommand::AssignPlan { pin, currency: "JPY".parse().unwrap(), from: at(10) };
        assert!(matches!(apply(&mut account, &yen), Err(AccountError::OtherCurrency { .. })));
        let later = Pin { version: 4, ..pin };
        let schedule = |from, notice: &str| AccountCommand::SchedulePlanChange {
            pin: later,
            currency: euro(),
            from: at(from),
            now: at(20),
            notice: notice.into(),
        };
        assert!(apply(&mut account, &schedule(20, "n")).is_err());
        assert!(apply(&mut account, &schedule(21, " ")).is_err(), "without notice");
        apply(&mut account, &schedule(21, "new prices")).unwrap();
        assert_eq!((account.pin_at(at(20)), account.pin_at(at(21))), (Some(pin), Some(later)));
    }

    #[test]
    fn its_own_price_holds_until_it_is_taken_back() {
        let mut account = opened();
        let price = |charge: Option<&str>, from| AccountCommand::OverridePrice {
            meter: Meter::Compute,
            charge: charge.map(|json| serde_json::from_str(json).unwrap()),
            from: at(from),
        };
        let flat = r#"{"meter":"compute","unit":"s","model":"flat","unit_price":"0.5"}"#;
        let storage = r#"{"meter":"storage","unit":"GB.h","model":"flat","unit_price":"0.5"}"#;
        apply(&mut account, &price(Some(flat), 10)).unwrap();
        apply(&mut account, &price(None, 20)).unwrap();
        assert!(apply(&mut account, &price(Some(storage), 30)).is_err());
        let own = |millis| account.own_charges_at(at(millis)).unwrap().len();
        assert_eq!((own(9), own(10), own(19), own(20)), (0, 1, 1, 0));
    }

    #[test]
    fn credit_is_used_up_and_comes_back_with_a_void_invoice() {
        let mut account = opened();
        let grant = AccountCommand::GrantCredit { amount: "10.00".parse().unwrap(), reason: "r".into() };
        apply(&mut account, &grant).unwrap();
        let invoice = Uuid::now_v7();
        let invoiced = AccountCommand::Invoiced { invoice, end: at(10), credit_used: amount("7.50") };
        assert_eq!((apply(&mut account, &invoiced), apply(&mut account, &invoiced)), (Ok(1), Ok(0)));
        assert_eq!(account.credit().unwrap(), amount("2.50"));
        apply(&mut account, &AccountCommand::InvoiceVoided { invoice }).unwrap();
        assert_eq!(account.credit().unwrap(), amount("10.00"));
    }

    #[test]
    fn a_threshold_is_said_once_a_month_for_each_kind() {
        let mut account = opened();
        let budget = AccountCommand::SetBudget { amount: Some(100.into()), thresholds: vec![80, 50], hard_stop: true };
        apply(&mut account, &budget).unwrap();
        assert_eq!(apply(&mut account, &budget), Ok(0));
        let check = |month_, actual: &str, forecast: &str| AccountCommand::CheckBudget {
            month: month(month_),
            actual: amount(actual),
            forecast: amount(forecast),
        };
        assert_eq!(apply(&mut account, &check("2025-03", "49.99", "79.99")), Ok(1));
        assert_eq!(apply(&mut account, &check("2025-03", "50.00", "79.99")), Ok(1));
        assert_eq!(apply(&mut account, &check("2025-03", "50.00", "79.99")), Ok(0));
        assert!(account.jobs_allowed(month("2025-03")));
        assert_eq!(apply(&mut account, &check("2025-03", "100.00", "200.00")), Ok(4));
        assert!(!account.jobs_allowed(month("2025-03")) && account.jobs_allowed(month("2025-04")));
        assert_eq!(apply(&mut account, &check("2025-04", "50.00", "0.00")), Ok(1));
        let more = AccountCommand::SetBudget { amount: Some(500.into()), thresholds: vec![], hard_stop: true };
        apply(&mut account, &more).unwrap();
        assert!(account.jobs_allowed(month("2025-03")), "with a larger budget jobs go on");
    }

    #[test]
    fn nonsense_is_refused_with_its_place() {
        let account = opened();
        let refused = |command: AccountCommand| account.decide(&command).unwrap_err().to_string();
        let budget = |amount: &str, thresholds| AccountCommand::SetBudget {
            amount: Some(amount.parse().unwrap()),
            thresholds,
            hard_stop: false,
        };
        assert!(refused(budget("0.001", vec![])).starts_with("amount: 0.001 is finer"));
        assert!(refused(budget("0", vec![])).starts_with("amount: is nothing"));
        assert!(refused(budget("1", vec![0])).starts_with("thresholds: at most"));
        assert!(
            refused(AccountCommand::GrantDiscount { percent: 101.into(), reason: "r".into() }).starts_with("percent")
        );
        assert!(refused(AccountCommand::GrantDiscount { percent: 1.into(), reason: " ".into() }).starts_with("reason"));
    }
}
