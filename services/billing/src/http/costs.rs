//! Costs of a period by line and by job.
//!
//! Lines are at the account's prices, before discount, minimum, tax and credit, which belong to invoices only. The listed jobs, the
//! unattributed storage and the other usage sum to the whole usage and to the lines. Each is charged for its own usage at the prices
//! that applied at that time.

use axum::{Json, extract::State};
use http_kit::{ApiQuery, Problem};
use rating::{
    calendar::span::Span,
    pricing::{
        meter::{Meter, Quantity},
        price_model::{Charge, PriceModel},
    },
    rating::{
        allocation::{Cost, allocate_costs, is_of},
        rate::{self, Adjustments, Invoice, rate},
        term::Term,
        usage_amounts::UsageAmounts,
    },
    sharing::rule::{SharingRule, SharingRules},
};
use serde::Serialize;
use usage::{
    queries::{
        groups::GroupBy,
        snapshot::Snapshot,
        usage_by_term::{UsageByTerm, UsageSpans},
        usage_query::UsagePage,
    },
    read_error::ReadError,
};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    http::{
        access::ViewedOrganization,
        parameters::OrganizationPath,
        problems::ReadProblems,
        report_period::{ReportPeriodQuery, ReportPeriodResponse},
        state::Api,
        usage::MAX_LISTED,
    },
    invoicing::{error::LedgerError, month_usage::spans},
};

/// Decimal places of an exact amount.
const DIGITS: u8 = 12;

/// Costs of an organization in a period.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CostsResponse {
    organization: Uuid,
    #[serde(flatten)]
    period: ReportPeriodResponse,
    /// ISO 4217 code of all amounts.
    #[schema(example = "EUR")]
    currency: &'static str,
    /// Storage, then compute, with one line for each plan that applies in the period.
    lines: Vec<CostLineResponse>,
    /// The sum of the lines.
    #[schema(example = "7.62")]
    total: String,
    /// Whether jobs are still running or files are still stored, so that the costs grow after `as_of`.
    provisional: bool,
    /// How linked jobs share a file at the end of the period: `split`, or `unshared_only`, which leaves a file unattributed when
    /// jobs of several users share it. Earlier in the period, the plan of that time defines the rule.
    #[schema(example = "split")]
    split: &'static str,
    /// The first 200 jobs with usage in the period, by id.
    jobs: Vec<JobCostResponse>,
    /// Whether there are more jobs. Their costs are part of `others`, and usage rows list all of them.
    more_jobs: bool,
    /// The storage that is attributed to no job. Null when there are too many shared files for one response. Then all jobs and
    /// the unattributed storage are part of `others`.
    unattributed: Option<CostShareResponse>,
    /// The costs of all usage that is not listed above. Null when there is none.
    others: Option<CostShareResponse>,
}

/// Costs of one meter under one plan version.
#[derive(Debug, Serialize, ToSchema)]
struct CostLineResponse {
    /// `storage` or `compute`.
    #[schema(example = "storage")]
    meter: &'static str,
    /// `GB.h` (10⁹ bytes for one hour), `GiB.h` (2³⁰ bytes for one hour) or `s`.
    #[schema(example = "GB.h")]
    unit: &'static str,
    /// The plan's id, or `standard` for the installation's prices, which apply to an account without a plan.
    plan: String,
    plan_version: u32,
    /// Truncated to 12 decimal places. The amount is computed from the exact quantity.
    #[schema(example = "47.95000157308")]
    quantity: String,
    /// Null unless all units have the same price.
    #[schema(example = "0.0001")]
    unit_price: Option<String>,
    /// Rounded once, half away from zero, to the decimal places of the currency.
    #[schema(example = "0.00")]
    amount: String,
}

impl CostLineResponse {
    fn new(line: &rate::InvoiceLine, unit_price: Option<String>) -> Self {
        Self {
            meter: line.meter.as_str(),
            unit: line.quantity.unit.symbol(),
            plan: line.plan.plan.clone(),
            plan_version: line.plan.version,
            quantity: line.quantity.to_string(),
            unit_price,
            amount: line.amount.to_string(),
        }
    }
}

/// Costs of a job: its run time, and its shares of the files it uses.
#[derive(Debug, Serialize, ToSchema)]
struct JobCostResponse {
    job: Uuid,
    /// The user who ran the job. Null when it never ran, or has no user.
    user: Option<Uuid>,
    #[serde(flatten)]
    cost: CostShareResponse,
}

/// Costs of a part of the usage.
#[derive(Debug, Serialize, ToSchema)]
struct CostShareResponse {
    /// Stored bytes times milliseconds, exact.
    byte_ms: String,
    /// Run time in milliseconds, exact.
    run_ms: String,
    /// The share of the unrounded lines, truncated to 12 decimal places. Each line is shared by the usage that it prices.
    #[schema(example = "0.3603625")]
    amount: String,
    /// The share of the rounded lines, allocated by largest remainder. All shares sum to the total.
    #[schema(example = "0.36")]
    share: String,
}

impl CostShareResponse {
    fn new(by_term: &[UsageAmounts], cost: &Cost) -> Self {
        let metered = by_term.iter().fold(UsageAmounts::default(), |sum, metered| sum.plus(metered));
        Self {
            byte_ms: metered.get(Meter::Storage).to_string(),
            run_ms: metered.get(Meter::Compute).to_string(),
            amount: cost.exact.truncated(DIGITS),
            share: cost.share.to_string(),
        }
    }
}

/// Get costs of a period
///
/// Returns usage at the account's prices, or at the installation's for an organization without an account, by meter and by job.
/// A period that is not a calendar month is priced like one.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/costs", tag = "billing", params(OrganizationPath, ReportPeriodQuery),
    responses(
        (status = 200, description = "The costs in the period.", body = CostsResponse),
        (status = 422, description = "The period is empty or longer than 400 days, or the time zone is unknown.",
            body = Problem, content_type = "application/problem+json"),
        ReadProblems,
    )
)]
pub(super) async fn get_costs(
    State(api): State<Api>,
    ViewedOrganization(organization): ViewedOrganization,
    ApiQuery(query): ApiQuery<ReportPeriodQuery>,
) -> Result<Json<CostsResponse>, Problem> {
    let report = query.resolve(api.ledger.now())?;
    let terms = api.ledger.terms(organization, report.window.period).await?;
    let rules = SharingRules::of(&terms);
    let rule = rules.last();
    let mut snapshot = Snapshot::of(&api.pool, report.usage_query(organization)).await?.with_sharing_rules(rules);
    let of_terms = UsageSpans { terms: &spans(&terms), ..UsageSpans::default() };
    let UsageByTerm { by_term: metered, provisional, .. } = snapshot.usage_by_term(of_terms).await?;
    let usage: Vec<_> = terms.into_iter().zip(metered).collect();
    let invoice = rate(&usage, &Adjustments::default()).map_err(LedgerError::from)?.ok_or(LedgerError::EmptyPeriod)?;
    let shares = UsageShares::read(&mut snapshot, &usage).await?;
    let context = CostsContext { organization, period: (&report).into(), rule, provisional };
    Ok(Json(shares.response(context, &usage, &invoice)))
}

/// The fields of the response that do not depend on the shares.
struct CostsContext {
    organization: Uuid,
    period: ReportPeriodResponse,
    rule: SharingRule,
    provisional: bool,
}

/// Usage of one job in each term.
struct JobShare {
    job: Uuid,
    user: Option<Uuid>,
    by_term: Vec<UsageAmounts>,
}

/// Usage in shares, which sum to the whole. Each has its usage in each term.
struct UsageShares {
    /// `None` when it is part of `others`.
    unattributed: Option<Vec<UsageAmounts>>,
    jobs: Vec<JobShare>,
    more_jobs: bool,
    others: Vec<UsageAmounts>,
}

impl UsageShares {
    async fn read(snapshot: &mut Snapshot, usage: &[(Term, UsageAmounts)]) -> Result<Self, ReadError> {
        let whole: Vec<UsageAmounts> = usage.iter().map(|(_, metered)| metered.clone()).collect();
        let counted = snapshot.counted();
        let spans: Vec<Span> = usage.iter().map(|(term, _)| term.span.intersect(counted)).collect();
        let mut shares = Self { unattributed: None, jobs: Vec::new(), more_jobs: true, others: whole };
        let UsagePage { items, next } = match snapshot.groups(GroupBy::Job, &spans, None, MAX_LISTED).await {
            // The costs of the whole are known without the shares.
            Err(ReadError::LimitExceeded { .. }) => return Ok(shares),
            groups => groups?,
        };
        let jobs: Vec<_> = items.iter().filter_map(|(job, _)| *job).collect();
        let users = snapshot.first_users(&jobs).await?;
        shares.unattributed = Some(vec![UsageAmounts::default(); spans.len()]);
        shares.more_jobs = next.is_some();
        for (job, usage) in items {
            let amounts = usage.byte_ms.into_iter().zip(usage.run_ms);
            let by_term: Vec<UsageAmounts> =
                amounts.map(|(byte_ms, run_ms)| UsageAmounts::of(byte_ms, run_ms)).collect();
            for (other, by_term) in shares.others.iter_mut().zip(&by_term) {
                *other = other.minus(by_term);
            }
            match job {
                None => shares.unattributed = Some(by_term),
                Some(job) => shares.jobs.push(JobShare { job, user: users.get(&job).copied().flatten(), by_term }),
            }
        }
        Ok(shares)
    }

    fn response(self, context: CostsContext, usage: &[(Term, UsageAmounts)], invoice: &Invoice) -> CostsResponse {
        let has_unattributed = self.unattributed.is_some();
        let has_others = self.others.iter().any(|metered| *metered != UsageAmounts::default());
        let (jobs, by_job): (Vec<_>, Vec<_>) =
            self.jobs.into_iter().map(|share| ((share.job, share.user), share.by_term)).unzip();
        let all: Vec<Vec<UsageAmounts>> = self.unattributed.into_iter().chain(by_job).chain([self.others]).collect();
        let costs = allocate_costs(invoice, usage, &all);
        let mut costs = all.iter().zip(&costs).map(|(by_term, cost)| CostShareResponse::new(by_term, cost));
        let unattributed = if has_unattributed { costs.next() } else { None };
        let jobs = jobs.into_iter().zip(costs.by_ref());
        let jobs = jobs.map(|((job, user), cost)| JobCostResponse { job, user, cost }).collect();
        let others = costs.next().filter(|_| has_others);
        CostsResponse {
            organization: context.organization,
            period: context.period,
            currency: invoice.currency.code(),
            lines: lines(usage, invoice),
            total: invoice.subtotal.to_string(),
            provisional: context.provisional,
            split: context.rule.as_str(),
            jobs,
            more_jobs: self.more_jobs,
            unattributed,
            others,
        }
    }
}

/// Returns the lines of an invoice. A meter without usage has one line with the price that would apply.
fn lines(usage: &[(Term, UsageAmounts)], invoice: &Invoice) -> Vec<CostLineResponse> {
    let mut lines = Vec::new();
    for meter in [Meter::Storage, Meter::Compute] {
        let lines_before = lines.len();
        for line in invoice.lines.iter().filter(|line| line.meter == meter) {
            let terms_of_line = usage.iter().filter(|(term, metered)| metered.get(meter) != 0 && is_of(line, term));
            let mut prices = terms_of_line.map(|(term, _)| term.plan.charges.get(&meter).and_then(unit_price));
            let first = prices.next().flatten();
            let common = first.filter(|first| prices.all(|other| other.as_ref() == Some(first)));
            lines.push(CostLineResponse::new(line, common));
        }
        let unused = usage.last().filter(|_| lines.len() == lines_before);
        if let Some((charge, plan)) = unused.and_then(|(term, _)| Some((term.plan.charges.get(&meter)?, &term.plan))) {
            lines.push(CostLineResponse {
                meter: meter.as_str(),
                unit: charge.unit.symbol(),
                plan: plan.key.plan.clone(),
                plan_version: plan.key.version,
                quantity: Quantity { metered: 0, unit: charge.unit }.to_string(),
                unit_price: unit_price(charge),
                amount: rating::money::amount::Amount::zero(invoice.currency).to_string(),
            });
        }
    }
    lines
}

/// Returns the price of a unit, or `None` unless all units have the same price.
fn unit_price(charge: &Charge) -> Option<String> {
    match &charge.model {
        PriceModel::Flat { free, unit_price } if free.is_zero() => Some(unit_price.to_string()),
        _ => None,
    }
}
