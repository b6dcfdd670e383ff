use contracts::invoice::{InvoiceDrafted, InvoiceEvent, InvoiceFinalized, Line};
use epoch::{Aggregate, Timestamp};
use uuid::Uuid;

use super::{InvoiceCommand, InvoiceError, InvoiceState, LineAmount, LineKey};
use crate::{
    calendar::span::Span,
    money::amount::Amount,
    pricing::standard_plan::FlatPrices,
    rating::{
        rate::{Adjustments, Invoice, rate},
        term::Term,
        usage_amounts::UsageAmounts,
    },
};

fn apply(invoice: &mut InvoiceState, command: &InvoiceCommand) -> Result<Vec<InvoiceEvent>, InvoiceError> {
    let events = invoice.decide(command)?;
    events.iter().for_each(|event| invoice.evolve(event));
    Ok(events)
}

fn draft() -> InvoiceCommand {
    InvoiceCommand::Draft(InvoiceDrafted {
        organization_id: Uuid::nil(),
        month: "2025-03".into(),
        start_at: Timestamp::from_millis(0),
        end_at: Timestamp::from_millis(1),
        time_zone: "UTC".into(),
    })
}

fn finalize(number: i64) -> InvoiceCommand {
    let line = Line {
        meter: "compute".into(),
        unit: "s".into(),
        plan: "p".into(),
        plan_version: 1,
        metered: "10000".into(),
        quantity: "10".into(),
        amount: "10.00".into(),
    };
    let text = || "10.00".to_owned();
    InvoiceCommand::Finalize(Box::new(InvoiceFinalized {
        organization_id: Uuid::nil(),
        number,
        currency: "EUR".into(),
        lines: vec![line],
        corrections: vec![],
        days: vec![],
        rounding: "0".into(),
        subtotal: text(),
        discount: "0.00".into(),
        minimum_true_up: "0.00".into(),
        tax: "0.00".into(),
        total: text(),
        credit_applied: "0.00".into(),
        amount_due: text(),
        discount_percent: "0".into(),
    }))
}

fn adjust(lines: &[(&str, i128, &str)]) -> InvoiceCommand {
    let line = |(meter, metered, amount): &(&str, i128, &str)| LineAmount {
        key: LineKey { meter: (*meter).to_owned(), plan: "p".into(), plan_version: 1 },
        metered: *metered,
        amount: Amount::parse(amount, "EUR".parse().unwrap()).unwrap(),
    };
    let lines = lines.iter().map(line).collect();
    InvoiceCommand::Adjust { lines, settled_in: Uuid::max(), reason: "late".into() }
}

#[test]
fn invoice_is_finalized_once() {
    let mut invoice = InvoiceState::default();
    assert_eq!(apply(&mut invoice, &finalize(1)), Err(InvoiceError::NotFound));
    apply(&mut invoice, &draft()).unwrap();
    assert_eq!((apply(&mut invoice, &draft()).unwrap().len(), invoice.status()), (0, "draft"));
    assert_eq!(apply(&mut invoice, &adjust(&[])), Err(InvoiceError::Draft));
    apply(&mut invoice, &finalize(7)).unwrap();
    assert_eq!(apply(&mut invoice, &finalize(8)), Err(InvoiceError::Finalized { number: 7 }));
    assert_eq!(invoice.status(), "finalized");
}

#[test]
fn same_difference_is_booked_once() {
    let mut invoice = InvoiceState::default();
    apply(&mut invoice, &draft()).unwrap();
    apply(&mut invoice, &finalize(1)).unwrap();
    let mut booked = |lines: &[(&str, i128, &str)]| {
        let events = apply(&mut invoice, &adjust(lines)).unwrap();
        let shown = events.into_iter().map(|event| match event {
            InvoiceEvent::AdjustmentBooked(booked) => {
                format!("{} {} {}", booked.meter, booked.metered, booked.amount)
            }
            other => panic!("{other:?}"),
        });
        shown.collect::<Vec<_>>()
    };
    assert_eq!(booked(&[("compute", 10_000, "10.00")]), [""; 0]);
    assert_eq!(booked(&[("compute", 8_000, "8.00")]), ["compute 8000 -2.00"]);
    assert_eq!(booked(&[("compute", 8_000, "8.00")]), [""; 0]);
    assert_eq!(booked(&[("compute", 9_000, "9.00"), ("storage", 1, "0.50")]), ["compute 9000 1.00", "storage 1 0.50"]);
    assert_eq!(booked(&[]), ["compute 0 -9.00", "storage 0 -0.50"], "lines that no longer exist");
}

#[test]
fn derived_amounts_are_adjusted_too() {
    let (euro, price) = (
        "EUR".parse().unwrap(),
        FlatPrices { currency: "EUR".parse().unwrap(), gb_hour: "0".parse().unwrap(), second: "1".parse().unwrap() },
    );
    let of = |seconds: i128, discount: &str, minimum: &str, tax: &str| {
        let span = Span::new(Timestamp::from_millis(0), Timestamp::from_millis(1));
        let usage = [(Term { span, plan: price.plan().plan.into() }, UsageAmounts::of(0, seconds * 1_000))];
        let adjustments = Adjustments {
            discount_percent: discount.parse().unwrap(),
            minimum: minimum.parse().unwrap(),
            tax_percent: tax.parse().unwrap(),
            ..Adjustments::default()
        };
        rate(&usage, &adjustments).unwrap().unwrap()
    };
    let differences = |before: &Invoice, now: &Invoice| {
        let mut invoice = InvoiceState::default();
        apply(&mut invoice, &draft()).unwrap();
        let InvoiceCommand::Finalize(mut frozen) = finalize(1) else { panic!() };
        frozen.lines[0].plan = "standard".into();
        frozen.lines[0].amount = before.lines[0].amount.to_string();
        (frozen.discount, frozen.minimum_true_up) = (before.discount.to_string(), before.minimum_true_up.to_string());
        (frozen.tax, frozen.total) = (before.tax.to_string(), before.total.to_string());
        apply(&mut invoice, &InvoiceCommand::Finalize(frozen)).unwrap();
        let differences = invoice.differences(&LineAmount::all_of(now)).unwrap();
        let sum = differences.iter().fold(Amount::zero(euro), |sum, line| sum.plus(&line.amount));
        assert_eq!(sum, now.total.minus(&before.total));
        differences.iter().map(|line| format!("{} {}", line.key.meter, line.amount)).collect::<Vec<_>>()
    };
    let differ = |seconds: (i128, i128), discount, minimum, tax| {
        differences(&of(seconds.0, discount, minimum, tax), &of(seconds.1, discount, minimum, tax))
    };
    assert_eq!(differ((10, 20), "10", "0", "20"), ["compute 10.00", "discount -1.00", "tax 1.80"]);
    assert_eq!(
        differ((10, 20), "0", "50", "20"),
        ["compute 10.00", "minimum_true_up -10.00"],
        "the minimum is due in any case"
    );
    assert_eq!(differ((60, 20), "0", "50", "0"), ["compute -40.00", "minimum_true_up 30.00"]);
}

#[test]
fn adjustments_of_a_void_invoice_are_released() {
    let mut invoice = InvoiceState::default();
    apply(&mut invoice, &draft()).unwrap();
    apply(&mut invoice, &finalize(1)).unwrap();
    apply(&mut invoice, &adjust(&[("compute", 8_000, "8.00")])).unwrap();
    let release = |settled_in| InvoiceCommand::Release { settled_in };
    assert!(apply(&mut invoice, &release(Uuid::nil())).unwrap().is_empty());
    assert_eq!(apply(&mut invoice, &release(Uuid::max())).unwrap().len(), 1);
    assert!(invoice.adjustments().is_empty());
    assert!(apply(&mut invoice, &release(Uuid::max())).unwrap().is_empty());
    let again = apply(&mut invoice, &adjust(&[("compute", 8_000, "8.00")])).unwrap();
    assert_eq!(again.len(), 1, "the next invoice settles it");
}

#[test]
fn void_of_a_finalized_invoice_needs_a_credit_note() {
    let void = InvoiceCommand::Void { reason: "a mistake".into(), credit_note: 2, void: vec![] };
    let mut drafted = InvoiceState::default();
    apply(&mut drafted, &draft()).unwrap();
    apply(&mut drafted, &void).unwrap();
    assert_eq!(drafted.voided().unwrap().credit_note, None);
    let mut frozen = InvoiceState::default();
    apply(&mut frozen, &draft()).unwrap();
    apply(&mut frozen, &finalize(1)).unwrap();
    apply(&mut frozen, &void).unwrap();
    let voided = frozen.voided().unwrap();
    assert_eq!((voided.credit_note, voided.amount.as_deref()), (Some(2), Some("10.00")));
    assert!(apply(&mut frozen, &void).unwrap().is_empty());
    assert!(matches!(apply(&mut frozen, &adjust(&[])), Err(InvoiceError::Void { .. })));
}
