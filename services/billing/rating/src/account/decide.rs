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
                    && charge.charge().map_err(|refused| refused.within("charge"))?.meter() != *meter
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
pub(super) mod tests {
    use epoch::{Aggregate, Timestamp};
    use uuid::Uuid;

    use super::{Account, AccountCommand, AccountError, Pin};
    use crate::{
        calendar::month::Month,
        money::{amount::Amount, currency::Currency},
        pricing::meter::Meter,
    };

    pub(in crate::account) fn euro() -> Currency {
        "EUR".parse().unwrap()
    }

    pub(in crate::account) fn apply(account: &mut Account, command: &AccountCommand) -> Result<usize, AccountError> {
        let events = account.decide(command)?;
        events.iter().for_each(|event| account.evolve(event));
        Ok(events.len())
    }

    pub(in crate::account) fn opened() -> Account {
        let mut account = Account::default();
        apply(&mut account, &open("europe/madrid")).unwrap();
        account
    }

    const FIRST: Pin = Pin { plan: Uuid::nil(), version: 1 };

    fn open(time_zone: &str) -> AccountCommand {
        AccountCommand::Open { pin: FIRST, currency: euro(), time_zone: time_zone.into() }
    }

    pub(in crate::account) fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    pub(in crate::account) fn month(text: &str) -> Month {
        text.parse().unwrap()
    }

    pub(in crate::account) fn amount(text: &str) -> Amount {
        Amount::from_decimal(&text.parse().unwrap(), euro()).unwrap()
    }

    #[test]
    fn account_opens_once_with_a_plan() {
        let mut account = opened();
        let ever = [at(-62_135_596_800_000), at(0), at(i64::MAX)];
        assert_eq!(ever.map(|at| account.pin_at(at)), [Some(FIRST); 3], "the opening plan covers all usage");
        assert_eq!(account.time_zone(month("2025-01")), "Europe/Madrid");
        assert_eq!(apply(&mut account, &open("UTC")), Err(AccountError::AlreadyExists));
        assert!(
            Account::default()
                .decide(&open("Europe/Nowhere"))
                .unwrap_err()
                .to_string()
                .starts_with("time_zone: there is no")
        );
        let credit = AccountCommand::GrantCredit { amount: 1.into(), reason: "r".into() };
        assert_eq!(Account::default().decide(&credit), Err(AccountError::NotFound));
    }

    #[test]
    fn time_zone_applies_from_its_first_month() {
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
    fn plan_is_assigned_only_after_the_invoiced_period() {
        let mut account = opened();
        let pin = Pin { plan: Uuid::now_v7(), version: 3 };
        let pinned = |pin, currency: &str, from, notice: Option<&str>| AccountCommand::AssignPlan {
            pin,
            currency: currency.parse().unwrap(),
            from: at(from),
            now: at(20),
            notice: notice.map(Into::into),
        };
        let assign = |from| pinned(pin, "EUR", from, None);
        let invoiced = AccountCommand::RecordInvoice { invoice: Uuid::nil(), end: at(10), credit_used: amount("0") };
        apply(&mut account, &invoiced).unwrap();
        assert!(matches!(apply(&mut account, &assign(9)), Err(AccountError::PeriodInvoiced { .. })));
        apply(&mut account, &assign(10)).unwrap();
        assert_eq!((account.pin_at(at(9)), account.pin_at(at(10))), (Some(FIRST), Some(pin)));
        assert!(matches!(apply(&mut account, &pinned(pin, "JPY", 10, None)), Err(AccountError::OtherCurrency { .. })));
        let later = Pin { version: 4, ..pin };
        let mut refused = |from, notice| match apply(&mut account, &pinned(later, "EUR", from, notice)) {
            Err(AccountError::InvalidInput(refused)) => refused.place,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(20, Some("n")), "from");
        assert_eq!((refused(21, None), refused(21, Some(" "))), ("notice".to_owned(), "notice".to_owned()));
        apply(&mut account, &pinned(later, "EUR", 21, Some("new prices"))).unwrap();
        assert_eq!((account.notice(at(10)), account.notice(at(21))), (None, Some("new prices")));
        assert_eq!((account.pin_at(at(20)), account.pin_at(at(21))), (Some(pin), Some(later)));
    }

    #[test]
    fn invoiced_period_may_change_once_the_invoice_is_void() {
        let mut account = opened();
        let assign = |from| AccountCommand::AssignPlan {
            pin: Pin { version: 2, ..FIRST },
            currency: euro(),
            from: at(from),
            now: at(100),
            notice: None,
        };
        let invoices = [30, 10, 20].map(|end| (end, Uuid::from_u128(end)));
        for (end, invoice) in invoices {
            let end = at(i64::try_from(end).unwrap());
            apply(&mut account, &AccountCommand::RecordInvoice { invoice, end, credit_used: amount("0") }).unwrap();
        }
        for (void, until) in [(10, Some(at(30))), (30, Some(at(20))), (20, None)] {
            apply(&mut account, &AccountCommand::RecordVoid { invoice: Uuid::from_u128(void) }).unwrap();
            assert_eq!(account.invoiced_until(), until);
            let refused = until.map(|until| account.decide(&assign(until.as_millis() - 1)).is_err());
            assert_ne!(refused, Some(false));
            assert!(account.decide(&assign(until.map_or(0, Timestamp::as_millis))).is_ok());
        }
    }

    #[test]
    fn price_override_applies_until_it_is_removed() {
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
        let overrides = |millis| account.price_overrides_at(at(millis)).unwrap().len();
        assert_eq!((overrides(9), overrides(10), overrides(19), overrides(20)), (0, 1, 1, 0));
    }

    #[test]
    fn void_invoice_returns_consumed_credit() {
        let mut account = opened();
        let grant = AccountCommand::GrantCredit { amount: "10.00".parse().unwrap(), reason: "r".into() };
        apply(&mut account, &grant).unwrap();
        let invoice = Uuid::now_v7();
        let invoiced = AccountCommand::RecordInvoice { invoice, end: at(10), credit_used: amount("7.50") };
        assert_eq!((apply(&mut account, &invoiced), apply(&mut account, &invoiced)), (Ok(1), Ok(0)));
        assert_eq!(account.credit().unwrap(), amount("2.50"));
        apply(&mut account, &AccountCommand::RecordVoid { invoice }).unwrap();
        assert_eq!(account.credit().unwrap(), amount("10.00"));
    }

    #[test]
    fn invalid_input_is_rejected_with_its_place() {
        let account = opened();
        let refused = |command: AccountCommand| account.decide(&command).unwrap_err().to_string();
        let budget = |amount: &str, thresholds| AccountCommand::SetBudget {
            amount: Some(amount.parse().unwrap()),
            thresholds,
            hard_stop: false,
            now: at(0),
        };
        assert!(refused(budget("0.001", vec![])).starts_with("amount: 0.001 is more precise"));
        assert!(refused(budget("0", vec![])).starts_with("amount: is nothing"));
        assert!(refused(budget("1", vec![0])).starts_with("thresholds: at most"));
        assert!(
            refused(AccountCommand::GrantDiscount { percent: 101.into(), reason: "r".into() }).starts_with("percent")
        );
        assert!(refused(AccountCommand::GrantDiscount { percent: 1.into(), reason: " ".into() }).starts_with("reason"));
    }
}
