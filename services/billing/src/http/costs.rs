//! What usage costs, and what of it is which job's.
//!
//! The invariant: lines are at the account's prices, before what belongs to an invoice only (discount, minimum, tax, credit). What
//! is told by job, what no job uses, and all other jobs together sum to the usage and to the lines; each pays for what it used by the
//! prices that applied then.

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
        rate::{Adjustments, Invoice, InvoiceLine, rate},
        term::Term,
        usage_amounts::UsageAmounts,
    },
    sharing::rule::SharingRule,
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
        access::Viewed,
        question::{Question, QuestionQuery},
        state::Api,
        usage::LISTED,
    },
    invoicing::{
        error::LedgerError,
        month_usage::{rule_of, spans},
    },
};

/// Digits of an exact amount after the point.
const DIGITS: u8 = 12;

/// What an organization's usage in a period costs.
#[derive(Debug, Serialize, ToSchema)]
pub struct CostsAnswer {
    organization: Uuid,
    #[schema(value_type = String, format = DateTime)]
    from: String,
    #[schema(value_type = String, format = DateTime)]
    to: String,
    /// What happened later doesn't count; what still runs or is still stored counts up to here.
    #[schema(value_type = String, format = DateTime)]
    as_of: String,
    /// What was recorded later is left out; null when nothing is.
    #[schema(value_type = Option<String>, format = DateTime)]
    known_at: Option<String>,
    time_zone: String,
    /// As a code of ISO 4217.
    #[schema(example = "EUR")]
    currency: &'static str,
    /// Storage, then compute; of each plan that applies in the period.
    lines: Vec<LineAnswer>,
    /// The sum of the lines.
    #[schema(example = "7.62")]
    total: String,
    /// Whether something still runs or is still stored that counts only up to `as_of`.
    provisional: bool,
    /// How the jobs that use a file share it: `split`, or `unshared_only`, by which a file that jobs of several users share is no
    /// job's. It is what the last plan of the period says; before that plan applied, files were shared as the plan of that time says.
    split: &'static str,
    /// The first 200 jobs that ran or used files, by id.
    jobs: Vec<JobCost>,
    /// Whether there are more jobs; they are among `others`, and rows of usage tell all of them.
    more_jobs: bool,
    /// The storage that is no job's. Null when it takes more shared files than are read at once; then it and all jobs are `others`.
    unattributed: Option<PartCost>,
    /// All that is not told above: null when that is nothing.
    others: Option<PartCost>,
}

/// What one meter costs under one plan.
#[derive(Debug, Serialize, ToSchema)]
struct LineAnswer {
    /// `storage` or `compute`.
    meter: &'static str,
    /// `GB.h` (10⁹ bytes for an hour), `GiB.h` or `s`.
    unit: &'static str,
    /// The plan's id; `standard` for the installation's prices, which apply while an account has no plan.
    plan: String,
    plan_version: u32,
    /// Cut after 12 digits; the amount is of the exact quantity.
    #[schema(example = "47.95000157308")]
    quantity: String,
    /// Null where units don't all have the same price.
    #[schema(example = "0.0001")]
    unit_price: Option<String>,
    /// Rounded once, half away from zero, to the currency's digits.
    #[schema(example = "0.00")]
    amount: String,
}

/// What a job costs: its run time, and its share of the files it uses.
#[derive(Debug, Serialize, ToSchema)]
struct JobCost {
    job: Uuid,
    /// Who ran it; null when it never ran, or for nobody.
    user: Option<Uuid>,
    #[serde(flatten)]
    cost: PartCost,
}

/// What a part of the usage costs.
#[derive(Debug, Serialize, ToSchema)]
struct PartCost {
    /// Bytes times milliseconds, exact.
    byte_ms: String,
    /// Milliseconds, exact.
    run_ms: String,
    /// Its part of the lines before they were rounded, cut after 12 digits: of each line, by what it used while that price applied.
    #[schema(example = "0.3603625")]
    amount: String,
    /// Its share of what the lines show, by largest remainder: all parts sum to the total.
    #[schema(example = "0.36")]
    share: String,
}

/// Costs of a period
///
/// Usage at the account's prices, or the installation's while it has no plan, by meter and by job. A period that isn't a month is
/// priced as if it were one. Takes the parameters of usage.
#[utoipa::path(
    get,
    path = "/api/v1/organizations/{org}/costs",
    tag = "billing",
    params(("org" = Uuid, Path, description = "The organization"), QuestionQuery),
    responses(
        (status = 200, body = CostsAnswer),
        (status = 400, description = "A parameter is unknown or isn't an instant", body = Problem),
        (status = 404, description = "There is no such organization for the caller", body = Problem),
        (status = 422, description = "The period is empty or longer than 400 days, or the time zone is unknown",
            body = Problem),
    )
)]
pub async fn costs(
    State(api): State<Api>,
    Viewed(organization): Viewed,
    ApiQuery(query): ApiQuery<QuestionQuery>,
) -> Result<Json<CostsAnswer>, Problem> {
    let question = query.question(api.ledger.now())?;
    let period = question.window.period;
    let terms = api.ledger.terms(organization, period).await?;
    let rules = rule_of(&terms);
    let rule = rules.last();
    let mut snapshot = Snapshot::of(&api.pool, question.of(organization)).await?.with_sharing_rules(rules);
    let of_terms = UsageSpans { terms: &spans(&terms), ..UsageSpans::default() };
    let UsageByTerm { by_term: metered, provisional, .. } = snapshot.usage_by_term(of_terms).await?;
    let usage: Vec<_> = terms.into_iter().zip(metered).collect();
    let invoice = rate(&usage, &Adjustments::default()).map_err(LedgerError::from)?.ok_or(LedgerError::EmptyPeriod)?;
    let parts = Parts::read(&mut snapshot, &usage).await?;
    Ok(Json(parts.answer(organization, question, &usage, &invoice, rule, provisional)))
}

/// What was used in each term.
type ByTerm = Vec<UsageAmounts>;

/// Usage in parts, which sum to the whole.
struct Parts {
    /// None when it isn't known apart from the others.
    unattributed: Option<ByTerm>,
    jobs: Vec<(Uuid, Option<Uuid>, ByTerm)>,
    more_jobs: bool,
    others: ByTerm,
}

impl Parts {
    async fn read(snapshot: &mut Snapshot, usage: &[(Term, UsageAmounts)]) -> Result<Self, ReadError> {
        let whole: ByTerm = usage.iter().map(|(_, metered)| metered.clone()).collect();
        let counted = snapshot.counted();
        let spans: Vec<Span> = usage.iter().map(|(term, _)| term.span.intersect(counted)).collect();
        let mut parts = Self { unattributed: None, jobs: Vec::new(), more_jobs: true, others: whole };
        let UsagePage { items, next } = match snapshot.groups(GroupBy::Job, &spans, None, LISTED).await {
            // What all of it costs can be told all the same.
            Err(ReadError::LimitExceeded { .. }) => return Ok(parts),
            groups => groups?,
        };
        let jobs: Vec<_> = items.iter().filter_map(|(job, _)| *job).collect();
        let users = snapshot.first_users(&jobs).await?;
        parts.unattributed = Some(vec![UsageAmounts::default(); spans.len()]);
        parts.more_jobs = next.is_some();
        for (job, usage) in items {
            let both = usage.byte_ms.into_iter().zip(usage.run_ms);
            let by_term: ByTerm = both.map(|(byte_ms, run_ms)| UsageAmounts::of(byte_ms, run_ms)).collect();
            for (other, told) in parts.others.iter_mut().zip(&by_term) {
                *other = other.minus(told);
            }
            match job {
                None => parts.unattributed = Some(by_term),
                Some(job) => parts.jobs.push((job, users.get(&job).copied().flatten(), by_term)),
            }
        }
        Ok(parts)
    }

    fn answer(
        self,
        organization: Uuid,
        question: Question,
        usage: &[(Term, UsageAmounts)],
        invoice: &Invoice,
        rule: SharingRule,
        provisional: bool,
    ) -> CostsAnswer {
        let has_unattributed = self.unattributed.is_some();
        let has_others = self.others.iter().any(|metered| *metered != UsageAmounts::default());
        let (of_jobs, by_term): (Vec<_>, Vec<_>) =
            self.jobs.into_iter().map(|(job, user, by_term)| ((job, user), by_term)).unzip();
        let all: Vec<ByTerm> = self.unattributed.into_iter().chain(by_term).chain([self.others]).collect();
        let costs = allocate_costs(invoice, usage, &all);
        let mut costs = all.iter().zip(&costs).map(|(by_term, cost)| PartCost::new(by_term, cost));
        let unattributed = if has_unattributed { costs.next() } else { None };
        let mut jobs = Vec::with_capacity(of_jobs.len());
        for ((job, user), cost) in of_jobs.into_iter().zip(costs.by_ref()) {
            jobs.push(JobCost { job, user, cost });
        }
        let others = costs.next().filter(|_| has_others);
        let period = question.window.period;
        CostsAnswer {
            organization,
            from: period.start().to_string(),
            to: period.end().to_string(),
            as_of: question.window.as_of.to_string(),
            known_at: question.known_at.map(|known_at| known_at.to_string()),
            time_zone: question.time_zone,
            currency: invoice.currency.code(),
            lines: lines(usage, invoice),
            total: invoice.subtotal.to_string(),
            provisional,
            split: rule.as_str(),
            jobs,
            more_jobs: self.more_jobs,
            unattributed,
            others,
        }
    }
}

impl PartCost {
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

/// The lines of an invoice; of a meter that wasn't used, what it would be charged by.
fn lines(usage: &[(Term, UsageAmounts)], invoice: &Invoice) -> Vec<LineAnswer> {
    let mut lines = Vec::new();
    for meter in [Meter::Storage, Meter::Compute] {
        let used = lines.len();
        for line in invoice.lines.iter().filter(|line| line.meter == meter) {
            let its_terms = usage.iter().filter(|(term, metered)| metered.get(meter) != 0 && is_of(line, term));
            let mut prices = its_terms.map(|(term, _)| term.plan.charges.get(&meter).and_then(unit_price));
            let first = prices.next().flatten();
            lines.push(LineAnswer::new(line, first.filter(|first| prices.all(|other| other.as_ref() == Some(first)))));
        }
        let unused = usage.last().filter(|_| lines.len() == used);
        if let Some((charge, plan)) = unused.and_then(|(term, _)| Some((term.plan.charges.get(&meter)?, &term.plan))) {
            lines.push(LineAnswer {
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

impl LineAnswer {
    fn new(line: &InvoiceLine, unit_price: Option<String>) -> Self {
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

/// The price of every unit, if all have the same.
fn unit_price(charge: &Charge) -> Option<String> {
    match &charge.model {
        PriceModel::Flat { free, unit_price } if free.is_zero() => Some(unit_price.to_string()),
        _ => None,
    }
}
