//! Rows of usage as CSV (RFC 4180): our own columns, and those of FOCUS.
//!
//! The problem: a spreadsheet or a FinOps tool reads numbers as it likes. The invariant: what was metered stands there as an exact
//! integer; a cost is the exact product with the price, cut after 18 digits where it has no end. No cell holds anything but ids, dates,
//! numbers and fixed words, so that nothing needs quoting and nothing can pass for a formula.
//!
//! FOCUS is the FinOps Open Cost and Usage Specification, here version 1.2: its mandatory columns, those about consumption, resources
//! and SKUs that apply, and one of our own, which as the specification wants begins with `x_`. A charge is one meter of one row;
//! costs are before discounts, minimum and tax, which belong to an invoice and not to usage.

use std::fmt::Write as _;

use uuid::Uuid;

use super::rows::{GroupByName, RowAnswer};
use crate::domain::{
    exact::Exact,
    prices::FlatPrices,
    quantity::{Quantity, Unit},
    span::Span,
};

/// Digits of a cost after the point.
const COST_DIGITS: u8 = 18;

/// The same columns as the JSON rows.
pub(super) fn own(rows: &[RowAnswer], group_by: Option<GroupByName>) -> String {
    let key_name = group_by.map_or("key", GroupByName::as_str);
    let mut text = format!("date,start,end,{key_name},byte_ms,gb_hours,run_ms\r\n");
    for row in rows {
        let key = row.key.as_deref().unwrap_or_default();
        let cell = |value: &Option<String>| value.clone().unwrap_or_default();
        let (byte_ms, gb_hours, run_ms) = (cell(&row.byte_ms), cell(&row.gb_hours), cell(&row.run_ms));
        let RowAnswer { date, start, end, .. } = row;
        // Writing to a string doesn't fail.
        let _ = write!(text, "{date},{start},{end},{key},{byte_ms},{gb_hours},{run_ms}\r\n");
    }
    text
}

/// The columns of FOCUS 1.2, in the order of the alphabet.
const FOCUS_COLUMNS: [&str; 34] = [
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ResourceId",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SkuPriceId",
    "SubAccountId",
    "x_MeteredQuantity",
];

/// The columns of FOCUS 1.2, at flat prices.
pub(super) fn focus(
    rows: &[RowAnswer],
    group_by: Option<GroupByName>,
    organization: Uuid,
    period: Span,
    prices: &FlatPrices,
) -> String {
    let mut text = FOCUS_COLUMNS.join(",");
    text.push_str("\r\n");
    for row in rows {
        let storage = ("Storage", "File storage", "Object Storage", "storage", "GB-Hours", &row.byte_ms, Unit::GbHour);
        let compute =
            ("Compute", "Job run time", "Serverless Compute", "compute", "Seconds", &row.run_ms, Unit::Second);
        for (category, name, subcategory, sku, unit, metered, size) in [storage, compute] {
            let Some(metered) = metered.as_deref().and_then(|metered| metered.parse::<i128>().ok()) else { continue };
            if metered == 0 {
                continue;
            }
            let price = match size {
                Unit::Second => &prices.second,
                _ => &prices.gb_hour,
            };
            let quantity = Exact::from(Quantity { metered, unit: size });
            let cost = quantity.times(&Exact::from(price)).cut(COST_DIGITS);
            let quantity = quantity.cut(COST_DIGITS);
            let (period_start, period_end) = (instant(&period.start().to_string()), instant(&period.end().to_string()));
            let (start, end) = (instant(&row.start), instant(&row.end));
            let key = row.key.clone().unwrap_or_default();
            let kind = row.key.as_ref().and(group_by).map(resource_type).unwrap_or_default();
            let cells = [
                cost.clone(),
                organization.to_string(),
                organization.to_string(),
                prices.currency.code().to_owned(),
                period_end,
                period_start,
                "Usage".to_owned(),
                String::new(),
                name.to_owned(),
                "Usage-Based".to_owned(),
                end,
                start,
                quantity.clone(),
                unit.to_owned(),
                cost.clone(),
                price.to_string(),
                cost.clone(),
                "Catacloud".to_owned(),
                cost,
                price.to_string(),
                "Standard".to_owned(),
                quantity,
                unit.to_owned(),
                "Catacloud".to_owned(),
                "Catacloud".to_owned(),
                key,
                kind.to_owned(),
                category.to_owned(),
                name.to_owned(),
                subcategory.to_owned(),
                sku.to_owned(),
                // The installation has one price for each meter, which is the one of its standard plan.
                format!("standard-{sku}"),
                organization.to_string(),
                metered.to_string(),
            ];
            text.push_str(&cells.join(","));
            text.push_str("\r\n");
        }
    }
    text
}

const fn resource_type(group_by: GroupByName) -> &'static str {
    match group_by {
        GroupByName::File => "File",
        GroupByName::Job => "Job",
        GroupByName::User => "User",
        GroupByName::JobConfiguration => "Job configuration",
        GroupByName::Machine => "Machine",
        GroupByName::MachineType => "Machine Type",
    }
}

/// As FOCUS writes instants: without milliseconds where there are none.
fn instant(text: &str) -> String {
    text.replace(".000Z", "Z")
}
