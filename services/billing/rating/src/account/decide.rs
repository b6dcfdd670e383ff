//! Decisions and state changes of a billing account.
//!
//! Invariants: no term of an invoiced period changes while the invoice is active; every price of an account
//! is in the currency of the account; and a plan change in the future carries a notice.

use contracts::billing_account::{
    AGGREGATE, AccountInvoiceVoided, AccountInvoiced, AccountOpened, AccountTimeZoneChanged, BillingAccountEvent,
    CreditGranted, DiscountGranted, PlanAssigned, PlanChangeScheduled, PriceOverridden,
};
use epoch::{Aggregate, Timestamp};
use uuid::Uuid;

use crate::{
    account::{Account, AccountCommand, AccountError, BEGINNING, IssuedInvoice, Pin, command::Decision},
    calendar::day::zone,
    money::amount::Amount,
    validation::{InvalidInput, percent, text},
};

impl Aggregate for Account {
    const NAME: &'static str = AGGREGATE;
    type Command = AccountCommand;
    type Event = BillingAccountEvent;
    type Error = AccountError;
    const STATE_SCHEMA: u32 = 3;

    fn decide(&self, command: &AccountCommand) -> Decision {
        if let AccountCommand::Open { pin, currency, time_zone } = command {
            if self.is_open() {
                return Err(AccountError::AlreadyExists);
            }
            let time_zone = canonical_zone(time_zone)?;
            let opened = AccountOpened { currency: currency.code().to_owned(), time_zone };
            return Ok(vec![opened.into(), assigned(*pin, BEGINNING)?.into()]);
        }
        let currency = self.currency()?;
        match command {
            AccountCommand::Open { .. } => Err(AccountError::AlreadyExists),
            AccountCommand::ChangeTimeZone { time_zone, from, current } => {
                if from <= current {
                    return Err(InvalidInput::new(
                        "from",
                        format!("{current} is the current month; {from} must be later"),
                    )
                    .into());
                }
                let time_zone = canonical_zone(time_zone)?;
                Ok(vec![AccountTimeZoneChanged { time_zone, from_month: from.to_string() }.into()])
            }
            AccountCommand::AssignPlan { pin, currency: plan, from, now, notice } => {
                if currency != *plan {
                    let account = currency.code().to_owned();
                    return Err(AccountError::OtherCurrency { account, plan: plan.code() });
                }
                self.require_not_invoiced(*from)?;
                match notice {
                    None if from > now => {
                        Err(InvalidInput::new("notice", format!("is required because {from} lies in the future"))
                            .into())
                    }
                    None => Ok(vec![assigned(*pin, *from)?.into()]),
                    Some(_) if from <= now => {
                        Err(InvalidInput::new("from", format!("{from} does not lie in the future")).into())
                    }
                    Some(notice) => {
                        text("notice", notice)?;
                        let PlanAssigned { plan_id, plan_version, from_at } = assigned(*pin, *from)?;
                        let notice = notice.trim().to_owned();
                        Ok(vec![PlanChangeScheduled { plan_id, plan_version, from_at, notice }.into()])
                    }
                }
            }
            AccountCommand::OverridePrice { meter, charge, from } => {
                self.require_not_invoiced(*from)?;
                if let Some(charge) = charge
                    && charge.charge().map_err(|error| error.within("charge"))?.meter() != *meter
                {
                    return Err(InvalidInput::new("charge.meter", format!("must be {}", meter.as_str())).into());
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
                let amount =
                    Amount::from_decimal(amount, currency).map_err(|error| InvalidInput::new("amount", error))?;
                if amount.is_zero() {
                    return Err(InvalidInput::new("amount", "is zero").into());
                }
                Ok(vec![CreditGranted { amount: amount.to_string(), reason: reason.trim().to_owned() }.into()])
            }
            AccountCommand::RecordUsage(usage) => {
                let newer = self.metered.as_ref().is_none_or(|known| known.through_at < usage.through_at);
                Ok(if newer { vec![usage.clone().into()] } else { vec![] })
            }
            AccountCommand::SetBudget { amount, thresholds, hard_stop, now } => {
                self.spending.set(currency, amount.as_ref(), thresholds, *hard_stop, *now)
            }
            AccountCommand::RecordInvoice { invoice, end, credit_used } => {
                if self.invoices.contains_key(invoice) {
                    return Ok(vec![]);
                }
                let credit_used = credit_used.to_string();
                Ok(vec![AccountInvoiced { invoice_id: *invoice, end_at: *end, credit_used }.into()])
            }
            AccountCommand::RecordVoid { invoice } => {
                let Some(issued) = self.invoices.get(invoice) else { return Ok(vec![]) };
                let credit_returned = issued.credit_used.clone();
                Ok(vec![AccountInvoiceVoided { invoice_id: *invoice, credit_returned }.into()])
            }
            AccountCommand::CheckBudget { month, actual, forecast } => {
                self.spending.check(currency, *month, actual, forecast.as_ref())
            }
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
                self.notices.insert(event.from_at.as_millis(), event.notice.clone());
            }
            BillingAccountEvent::PriceOverridden(event) => {
                let by_instant = self.overrides.entry(event.meter.clone()).or_default();
                by_instant.insert(event.from_at.as_millis(), event.charge.clone());
            }
            BillingAccountEvent::DiscountGranted(event) => self.discount_percent = Some(event.percent.clone()),
            BillingAccountEvent::CreditGranted(event) => self.credits.push(event.amount.clone()),
            BillingAccountEvent::UsageMetered(event) => self.metered = Some(event.clone()),
            BillingAccountEvent::BudgetSet(event) => self.spending.apply_budget(event),
            BillingAccountEvent::AccountInvoiced(event) => {
                let issued = IssuedInvoice { end: event.end_at, credit_used: event.credit_used.clone() };
                self.invoices.insert(event.invoice_id, issued);
            }
            BillingAccountEvent::AccountInvoiceVoided(event) => {
                self.invoices.remove(&event.invoice_id);
            }
            BillingAccountEvent::BudgetExceeded(event) => self.spending.apply_alert(event),
        }
    }
}

impl Account {
    fn require_not_invoiced(&self, from: Timestamp) -> Result<(), AccountError> {
        match self.invoiced_until() {
            Some(invoiced_until) if from < invoiced_until => Err(AccountError::PeriodInvoiced { from, invoiced_until }),
            _ => Ok(()),
        }
    }

    fn pin(&mut self, from: Timestamp, plan: Uuid, version: i32) {
        self.notices.remove(&from.as_millis());
        self.pins.insert(from.as_millis(), Pin { plan, version: version.unsigned_abs() });
    }
}

fn canonical_zone(name: &str) -> Result<String, InvalidInput> {
    let zone = zone(name).map_err(|error| InvalidInput::new("time_zone", error))?;
    Ok(zone.iana_name().unwrap_or("UTC").to_owned())
}

fn assigned(pin: Pin, from_at: Timestamp) -> Result<PlanAssigned, InvalidInput> {
    let plan_version = i32::try_from(pin.version).map_err(|error| InvalidInput::new("version", error))?;
    Ok(PlanAssigned { plan_id: pin.plan, plan_version, from_at })
}

#[cfg(test)]
pub(super) mod tests;
