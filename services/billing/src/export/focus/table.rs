//! The table: charges in the columns of FOCUS 1.2.

use std::fmt::Write as _;

use rating::{
    calendar::span::Span,
    money::currency::Currency,
    pricing::meter::{Meter, Unit},
};
use usage::queries::groups::GroupBy;
use uuid::Uuid;

/// The columns, in alphabetical order.
const FOCUS_COLUMNS: [&str; 36] = [
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
    "SkuMeter",
    "SkuPriceDetails",
    "SkuPriceId",
    "x_MeteredQuantity",
    "x_PlanVersion",
];

/// The FOCUS category of a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Category {
    Usage,
    Purchase,
    Tax,
    Credit,
    Adjustment,
}

impl Category {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "Usage",
            Self::Purchase => "Purchase",
            Self::Tax => "Tax",
            Self::Credit => "Credit",
            Self::Adjustment => "Adjustment",
        }
    }
}

/// A quantity with its unit, if there is one.
pub(super) type Measured = Option<(String, String)>;

/// A row of the table. Amounts and quantities are decimals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Charge {
    pub(super) category: Category,
    /// Whether the charge corrects an earlier invoice.
    pub(super) correction: bool,
    pub(super) description: &'static str,
    pub(super) period: Span,
    /// The billed, effective and contracted cost. They are equal, because there are no commitments.
    pub(super) cost: String,
    pub(super) list_cost: String,
    pub(super) consumed: Measured,
    pub(super) priced: Measured,
    /// The contracted unit price and the list unit price.
    pub(super) prices: Option<(String, String)>,
    pub(super) meter: Option<Meter>,
    /// Plan, meter and tier. It is equal for all versions of the plan and for all accounts.
    pub(super) price_id: Option<String>,
    pub(super) plan_version: Option<u32>,
    pub(super) resource: Option<(String, GroupBy)>,
    /// The metered amount as an integer. Empty where another row has it.
    pub(super) metered: String,
}

impl Charge {
    /// Returns a charge without a quantity.
    pub(super) fn plain(category: Category, description: &'static str, period: Span, cost: String) -> Self {
        Self {
            category,
            correction: false,
            description,
            period,
            list_cost: cost.clone(),
            cost,
            consumed: None,
            priced: None,
            prices: None,
            meter: None,
            price_id: None,
            plan_version: None,
            resource: None,
            metered: String::new(),
        }
    }
}

/// Returns the charges of an organization as CSV. `months` are the account's calendar months that the charges lie in, in order of time.
///
/// The account's name is unknown here, and FOCUS does not allow its id in place of the name, so that cell is empty.
pub(super) fn text(organization: Uuid, months: &[Span], currency: Currency, charges: &[Charge]) -> String {
    let mut text = FOCUS_COLUMNS.join(",");
    text.push_str("\r\n");
    let organization = organization.to_string();
    for charge in charges {
        let (category, name, subcategory) = service(charge.meter);
        let (consumed, consumed_unit) = charge.consumed.clone().unwrap_or_default();
        let (priced, priced_unit) = charge.priced.clone().unwrap_or_default();
        let (contracted_price, list_price) = charge.prices.clone().unwrap_or_default();
        let (resource, kind) = match &charge.resource {
            Some((id, group_by)) => (id.as_str(), resource_type(*group_by)),
            None => ("", ""),
        };
        let (start, end) = (instant(charge.period.start()), instant(charge.period.end()));
        let billed = billing_period(months, charge.period);
        let (period_start, period_end) = (instant(billed.start()), instant(billed.end()));
        let plan_version = charge.plan_version.map(|version| version.to_string()).unwrap_or_default();
        let is_once = charge.metered.is_empty() && charge.category != Category::Usage;
        let cells: [&str; 36] = [
            &charge.cost,
            &organization,
            "",
            currency.code(),
            &period_end,
            &period_start,
            charge.category.as_str(),
            if charge.correction { "Correction" } else { "" },
            charge.description,
            if is_once { "One-Time" } else { "Usage-Based" },
            &end,
            &start,
            &consumed,
            &consumed_unit,
            &charge.cost,
            &contracted_price,
            &charge.cost,
            "Catacloud",
            &charge.list_cost,
            &list_price,
            if charge.prices.is_some() { "Standard" } else { "" },
            &priced,
            &priced_unit,
            "Catacloud",
            "Catacloud",
            resource,
            kind,
            category,
            name,
            subcategory,
            charge.meter.map_or("", Meter::as_str),
            charge.meter.map_or("", |_| name),
            "",
            charge.price_id.as_deref().unwrap_or_default(),
            &charge.metered,
            &plan_version,
        ];
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{}\r\n", cells.join(","));
    }
    text
}

/// Returns the span from the start of the first to the end of the last month that a charge lies in.
fn billing_period(months: &[Span], charged: Span) -> Span {
    let first = months.iter().find(|month| month.end() > charged.start());
    let last = months.iter().rev().find(|month| month.start() < charged.end());
    Span::new(first.map_or(charged.start(), |month| month.start()), last.map_or(charged.end(), |month| month.end()))
}

const fn service(meter: Option<Meter>) -> (&'static str, &'static str, &'static str) {
    match meter {
        Some(Meter::Storage) => ("Storage", "File storage", "Object Storage"),
        Some(Meter::Compute) => ("Compute", "Job run time", "Serverless Compute"),
        None => ("Other", "Catacloud", "Other (Other)"),
    }
}

/// Returns the FOCUS name of a unit.
pub(super) const fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::GbHour => "GB-Hours",
        Unit::GibHour => "GiB-Hours",
        Unit::Second => "Seconds",
    }
}

const fn resource_type(group_by: GroupBy) -> &'static str {
    match group_by {
        GroupBy::File => "File",
        GroupBy::Job => "Job",
        GroupBy::User => "User",
        GroupBy::JobConfiguration => "Job configuration",
        GroupBy::Machine => "Machine",
        GroupBy::MachineType => "Machine Type",
    }
}

/// Formats an instant as in the examples of FOCUS, without zero milliseconds.
fn instant(at: epoch::Timestamp) -> String {
    at.to_string().replace(".000Z", "Z")
}
