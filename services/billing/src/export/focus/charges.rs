//! Charges: usage priced by tier, and the amounts that an invoice computes from the lines.

use std::collections::BTreeMap;

use bigdecimal::num_bigint::BigInt;
use contracts::invoice::Correction;
use rating::{
    calendar::span::Span,
    invoice,
    money::{amount::Amount, decimal::Decimal, exact::Exact},
    pricing::{
        meter::{Meter, Quantity},
        plan::PlanVersion,
        price_item::{self, PriceItemKind, price_items_between},
        price_model::{self, PriceModel},
    },
    rating::{rate::Invoice, term::Term, usage_amounts::UsageAmounts},
};
use usage::queries::groups::GroupBy;

use crate::export::focus::table::{Category, Charge, Measured, unit};

/// Decimal places of costs and quantities.
const DIGITS: u8 = 18;

/// A part of the period in which one plan applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) span: Span,
    /// The index of the term.
    pub(super) term: usize,
}

/// Usage of a key in each piece. `None` is the key of the remaining usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyUsage {
    pub(super) key: Option<String>,
    pub(super) metered: Vec<UsageAmounts>,
}

/// The key of an invoice line: meter, plan version, and whether a price override applies.
type LineKey = (Meter, PlanVersion, bool);

/// The progress of pricing a line.
struct Line {
    exact: Exact,
    /// The sum of the row costs so far, in units of the last decimal place.
    written: BigInt,
}

impl Line {
    /// Advances the line to `exact` and returns the cost of the next row. Rounding differences carry over to the next row.
    fn advance_to(&mut self, exact: &Exact) -> Exact {
        let written = exact.rounded(DIGITS);
        let cost = Exact::of_digits(&written - &self.written, DIGITS);
        self.written = written;
        cost
    }
}

/// A meter and its price under the plan of a term.
#[derive(Clone, Copy)]
struct Metering<'t> {
    term: &'t Term,
    meter: Meter,
    charge: &'t price_model::Charge,
}

/// Usage, priced row by row in order of time.
pub(super) struct Priced<'u> {
    pub(super) group_by: Option<GroupBy>,
    /// The usage of each key. All keys sum to `whole`.
    pub(super) used: &'u [KeyUsage],
    /// The usage in each piece.
    pub(super) whole: &'u [UsageAmounts],
    lines: BTreeMap<LineKey, Line>,
    /// The costs at list prices minus the costs.
    off_the_list: Exact,
    charges: Vec<Charge>,
}

impl<'u> Priced<'u> {
    /// Prices the usage in the pieces of terms.
    pub(super) fn of(
        group_by: Option<GroupBy>,
        (terms, pieces): (&[Term], &[Piece]),
        (used, whole): (&'u [KeyUsage], &'u [UsageAmounts]),
    ) -> Self {
        let mut priced =
            Self { group_by, used, whole, lines: BTreeMap::new(), off_the_list: Exact::zero(), charges: Vec::new() };
        let mut before = UsageAmounts::default();
        for (number, term) in terms.iter().enumerate() {
            let of_term: Vec<_> = pieces.iter().enumerate().filter(|(_, piece)| piece.term == number).collect();
            let in_term = of_term.iter().filter_map(|(index, _)| whole.get(*index));
            let in_term = in_term.fold(UsageAmounts::default(), |sum, metered| sum.plus(metered));
            for (meter, charge) in &term.plan.charges {
                let metering = Metering { term, meter: *meter, charge };
                let (first, more) = (before.get(*meter), in_term.get(*meter));
                match charge.model {
                    // The tier of each unit depends on the volume of the whole term.
                    PriceModel::Volume(_) => priced.price_by_volume(metering, &of_term, (first, more)),
                    _ => priced.price_by_time(metering, &of_term, first),
                }
            }
            before = before.plus(&in_term);
        }
        priced
    }

    fn price_by_time(&mut self, metering: Metering<'_>, pieces: &[(usize, &Piece)], first: i128) {
        let mut reached = first;
        for (index, piece) in pieces {
            let more = self.metered(*index, metering.meter);
            let mut parts = price_items_between(metering.charge, reached, reached + more);
            if let (PriceModel::Package { price, .. }, true, true) =
                (&metering.charge.model, parts.is_empty(), more != 0)
            {
                // The usage fits into a package that was started and charged before.
                let (quantity, amount) = (Exact::zero(), Exact::zero());
                let kind = PriceItemKind::Packages;
                parts.push(price_item::PriceItem { tier: 0, kind, quantity, unit_price: price.clone(), amount });
            }
            self.push_rows(metering, (*index, piece.span), &parts);
            reached += more;
        }
    }

    fn price_by_volume(&mut self, metering: Metering<'_>, pieces: &[(usize, &Piece)], (first, more): (i128, i128)) {
        let all = price_items_between(metering.charge, first, first + more);
        let (fees, units): (Vec<_>, Vec<_>) = all.into_iter().partition(|part| part.kind == PriceItemKind::Fee);
        for (index, piece) in pieces {
            let metered = self.metered(*index, metering.meter);
            let share = |part: &price_item::PriceItem| price_item::PriceItem {
                quantity: part.quantity.part(metered, more),
                amount: part.amount.part(metered, more),
                ..part.clone()
            };
            let parts: Vec<_> = units.iter().map(share).filter(|part| !part.quantity.is_zero()).collect();
            self.push_rows(metering, (*index, piece.span), &parts);
        }
        if let Some((index, _)) = pieces.last() {
            self.push_rows(metering, (*index, metering.term.span), &fees);
        }
    }

    fn metered(&self, index: usize, meter: Meter) -> i128 {
        self.whole.get(index).map_or(0, |amounts| amounts.get(meter))
    }

    /// Adds one row for each priced part and each key.
    fn push_rows(&mut self, metering: Metering<'_>, (index, span): (usize, Span), parts: &[price_item::PriceItem]) {
        let Metering { term, meter, charge } = metering;
        let plan = &term.plan;
        let own = plan.overridden.contains(&meter);
        let whole = self.metered(index, meter);
        let line = self.lines.entry((meter, plan.key.clone(), own));
        let line = line.or_insert_with(|| Line { exact: Exact::zero(), written: BigInt::from(0) });
        // Only the first row of each key has the metered amount, so that a sum over rows counts it once.
        let first = parts.iter().position(|part| part.kind != PriceItemKind::Fee);
        for (number, part) in parts.iter().enumerate() {
            let before = line.exact.clone();
            line.exact = line.exact.plus(&part.amount);
            let price_id = price_id(metering, part);
            let list = list_price(metering, part);
            let off_the_list = &mut self.off_the_list;
            let mut row = |cost: Exact, quantity: &Exact, description, consumed| {
                let list_cost = if list == part.unit_price { cost.clone() } else { quantity.times(&(&list).into()) };
                *off_the_list = off_the_list.plus(&list_cost).minus(&cost);
                // The quantity is negative where the usage is lower than counted before.
                let category = match part.kind {
                    PriceItemKind::Fee => Category::Purchase,
                    _ => Category::Usage,
                };
                Charge {
                    list_cost: list_cost.truncated(DIGITS),
                    consumed,
                    priced: Some((quantity.truncated(DIGITS), priced_unit(charge, part.kind))),
                    prices: Some((part.unit_price.to_string(), list.to_string())),
                    meter: Some(meter),
                    price_id: Some(price_id.clone()),
                    plan_version: Some(plan.key.version),
                    ..Charge::plain(category, description, span, cost.truncated(DIGITS))
                }
            };
            if part.kind == PriceItemKind::Fee {
                let cost = line.advance_to(&line.exact.clone());
                self.charges.push(row(cost, &part.quantity, "Fee of a tier", None));
                continue;
            }
            let mut reached = 0;
            for used in self.used {
                let metered = used.metered.get(index).map_or(0, |amounts| amounts.get(meter));
                if metered == 0 {
                    continue;
                }
                reached += metered;
                let cost = line.advance_to(&before.plus(&part.amount.part(reached, whole)));
                let quantity = part.quantity.part(metered, whole);
                let consumed = match part.kind {
                    PriceItemKind::Packages => Exact::from(Quantity { metered, unit: charge.unit }),
                    _ => quantity.clone(),
                };
                let consumed: Measured = Some((consumed.truncated(DIGITS), unit(charge.unit).to_owned()));
                let mut charge = row(cost, &quantity, described(meter, part.kind), consumed);
                charge.resource = used.key.clone().zip(self.group_by);
                if first == Some(number) {
                    charge.metered = metered.to_string();
                }
                self.charges.push(charge);
            }
        }
    }

    /// Returns all charges of the period: usage, rounding, corrections, discount, true-up, tax and credit.
    pub(super) fn charges(mut self, period: Span, invoiced: &Invoice, corrections: &[Correction]) -> Vec<Charge> {
        for line in &invoiced.lines {
            let key = (line.meter, line.plan.clone(), line.overridden);
            let written = self.lines.get(&key).map_or_else(|| BigInt::from(0), |line| line.written.clone());
            let rounding = line.amount.exact().minus(&Exact::of_digits(written, DIGITS));
            if !rounding.is_zero() {
                let cost = rounding.truncated(DIGITS);
                let meter = Some(line.meter);
                self.charges
                    .push(Charge { meter, ..Charge::plain(Category::Adjustment, "Rounding of a line", period, cost) });
            }
        }
        for correction in corrections {
            let meter = [Meter::Storage, Meter::Compute].into_iter().find(|meter| meter.as_str() == correction.meter);
            let description = "Correction of an earlier invoice";
            let category = match correction.meter.as_str() {
                invoice::DISCOUNT => Category::Credit,
                invoice::MINIMUM => Category::Adjustment,
                invoice::TAX => Category::Tax,
                _ => Category::Usage,
            };
            let plain = Charge::plain(category, description, period, correction.amount.clone());
            self.charges.push(Charge { meter, correction: true, ..plain });
        }
        // The list cost of a discount or tax is in the same proportion to the subtotal at list prices.
        let off = |amount: &Amount| Exact::zero().minus(&amount.exact());
        let part = |of: &Exact, amount: &Amount, sum: &Amount| of.in_proportion(&amount.exact(), &sum.exact());
        let Invoice { subtotal, discount, minimum_true_up, tax, credit_applied, .. } = invoiced;
        let listed = subtotal.exact().plus(&self.off_the_list);
        let list_discount = Exact::zero().minus(&part(&listed, discount, subtotal));
        let taxed = subtotal.minus(discount).plus(minimum_true_up);
        let list_taxed = listed.plus(&list_discount).plus(&minimum_true_up.exact());
        let sums = [
            (Category::Credit, "Discount", off(discount), list_discount),
            (Category::Adjustment, "True-up to the minimum", minimum_true_up.exact(), minimum_true_up.exact()),
            (Category::Tax, "Tax", tax.exact(), part(&list_taxed, tax, &taxed)),
            (Category::Credit, "Credit", off(credit_applied), off(credit_applied)),
        ];
        for (category, description, cost, list_cost) in sums {
            if !cost.is_zero() {
                let plain = Charge::plain(category, description, period, cost.truncated(DIGITS));
                self.charges.push(Charge { list_cost: list_cost.truncated(DIGITS), ..plain });
            }
        }
        self.charges
    }
}

const fn described(meter: Meter, kind: PriceItemKind) -> &'static str {
    match (meter, kind) {
        (Meter::Storage, PriceItemKind::Free) => "File storage, free units",
        (Meter::Compute, PriceItemKind::Free) => "Job run time, free units",
        (Meter::Storage, _) => "File storage",
        (Meter::Compute, _) => "Job run time",
    }
}

fn priced_unit(charge: &price_model::Charge, kind: PriceItemKind) -> String {
    match (kind, &charge.model) {
        (PriceItemKind::Fee, _) => "Fees".to_owned(),
        (PriceItemKind::Packages, PriceModel::Package { size, .. }) => format!("{size} {}", unit(charge.unit)),
        _ => unit(charge.unit).to_owned(),
    }
}

fn price_id(Metering { term, meter, .. }: Metering<'_>, part: &price_item::PriceItem) -> String {
    let plan = &term.plan.key.plan;
    let kind = match part.kind {
        PriceItemKind::Free => "-free",
        PriceItemKind::Fee => "-fee",
        PriceItemKind::Units | PriceItemKind::Packages => "",
    };
    format!("{plan}-{}-{}{kind}", meter.as_str(), part.tier)
}

/// Returns the list price of a priced part. For a price override, this is the plan's price if it is one price of the same unit. The
/// tiers and packages of an override have no comparable list price, so their own price is used.
fn list_price(Metering { term, meter, charge }: Metering<'_>, part: &price_item::PriceItem) -> Decimal {
    match (part.kind, term.plan.list_charges.get(&meter)) {
        (
            PriceItemKind::Units | PriceItemKind::Free,
            Some(price_model::Charge { unit, model: PriceModel::Flat { free, unit_price } }),
        ) if *unit == charge.unit && free.is_zero() => unit_price.clone(),
        _ => part.unit_price.clone(),
    }
}
