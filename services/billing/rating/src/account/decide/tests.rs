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
            .starts_with("time_zone: unknown time zone")
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
    let mut rejection = |from, notice| match apply(&mut account, &pinned(later, "EUR", from, notice)) {
        Err(AccountError::InvalidInput(rejection)) => rejection.place,
        other => panic!("{other:?}"),
    };
    assert_eq!(rejection(20, Some("n")), "from");
    assert_eq!((rejection(21, None), rejection(21, Some(" "))), ("notice".to_owned(), "notice".to_owned()));
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
        let rejection = until.map(|until| account.decide(&assign(until.as_millis() - 1)).is_err());
        assert_ne!(rejection, Some(false));
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
    let rejection = |command: AccountCommand| account.decide(&command).unwrap_err().to_string();
    let budget = |amount: &str, thresholds| AccountCommand::SetBudget {
        amount: Some(amount.parse().unwrap()),
        thresholds,
        hard_stop: false,
        now: at(0),
    };
    assert!(rejection(budget("0.001", vec![])).starts_with("amount: 0.001 has more"));
    assert!(rejection(budget("0", vec![])).starts_with("amount: is zero"));
    assert!(rejection(budget("1", vec![0])).starts_with("thresholds: at most"));
    assert!(
        rejection(AccountCommand::GrantDiscount { percent: 101.into(), reason: "r".into() }).starts_with("percent")
    );
    assert!(rejection(AccountCommand::GrantDiscount { percent: 1.into(), reason: " ".into() }).starts_with("reason"));
}
