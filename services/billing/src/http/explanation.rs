//! Explanations of invoices: lines, tiers, days, intervals and events.
//!
//! At each step the parts sum to the amount that they explain, before rounding: tiers and days to their line, intervals to their
//! day. A finalized invoice is explained by the events that were recorded when it was finalized, also years later. An event that
//! was still in transit at that moment shows up as an unexplained difference. A correction links to the explanation of the invoice
//! that it corrects, with the events known when the correction was settled, and from there to the days that changed.

mod intervals;
mod query;
mod response;

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use contracts::invoice::{Correction, Day as FinalizedDay, InvoiceFinalized};
use epoch::Timestamp;
use http_kit::{ApiQuery, Problem};
use rating::{
    money::{amount::Amount, exact::Exact},
    pricing::price_model::Part as ChargePart,
    rating::explain::steps,
};
use uuid::Uuid;

use self::{
    intervals::day_intervals,
    query::ExplanationQuery,
    response::{
        ExplainedCorrectionResponse, ExplainedDayResponse, ExplainedLineDayResponse, ExplainedLineResponse,
        ExplainedSumResponse, ExplainedTierResponse, ExplanationResponse, UnexplainedLineResponse,
    },
};
use crate::{
    http::{
        access::{InvoiceSelector, ViewedOrganization},
        instant::query_instant,
        invoice_response::InvoiceAdjustmentResponse,
        parameters::InvoicePath,
        problems::ReadProblems,
        selected_invoice::{SelectedInvoice, select_invoice},
        state::Api,
    },
    invoicing::month_usage::{Cutoff, Statement},
};

/// Decimal places of an exact amount.
const DIGITS: u8 = 12;

/// Explain an invoice
///
/// Returns the lines of an invoice by tier and by day. With `date`, also returns the intervals of that day and their events,
/// 100 files and 100 jobs at a time.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/invoices/{month}/explanation", tag = "billing",
    params(InvoicePath, ExplanationQuery),
    responses(
        (status = 200, description = "The explanation of the invoice.", body = ExplanationResponse),
        (status = 422, description = "The month is invalid, or `date` is not a day of the month.",
            body = Problem, content_type = "application/problem+json"),
        ReadProblems,
    )
)]
pub(super) async fn explain_invoice(
    State(api): State<Api>,
    ViewedOrganization(organization): ViewedOrganization,
    selector: InvoiceSelector,
    ApiQuery(query): ApiQuery<ExplanationQuery>,
) -> Result<Json<ExplanationResponse>, Problem> {
    let account = api.ledger.account(organization).await?;
    let SelectedInvoice { id, month, state } = select_invoice(&api.ledger, organization, selector).await?;
    let finalized_at = match state.finalized() {
        Some(_) => api.ledger.finalized_at(id).await?,
        None => None,
    };
    let known_at = query_instant("known_at", query.known_at.as_deref())?.or(finalized_at);
    let cutoff = Cutoff { as_of: api.ledger.now(), known_at };
    // The corrections of a finalized invoice were computed when it was finalized. Those of a draft have the cutoff of its usage.
    let (corrections, corrections_known_at) = match state.finalized() {
        Some(finalized) => (finalized.corrections.clone(), finalized_at),
        None => (api.ledger.pending_corrections(organization, &account, cutoff).await?, known_at),
    };
    let explanation = Explanation {
        organization,
        finalized: state.finalized(),
        statement: api.ledger.statement(organization, &account, month, cutoff, &corrections).await?,
    };
    let used = &explanation.statement.usage;
    let intervals = match &query.date {
        None => None,
        Some(date) => {
            let day = used.days.iter().position(|(day, _)| day.date.to_string() == *date);
            let day = day.ok_or_else(|| Problem::unprocessable(format!("{date:?} is not a day of {month}")))?;
            let parts: Vec<_> = used.parts.iter().filter(|part| part.day == day).map(|part| part.span).collect();
            day_intervals(&api.ledger, organization, used.cutoff, &parts, &query).await?
        }
    };
    let corrections = corrections.iter().map(|correction| explanation.correction(correction, corrections_known_at));
    let invoice = &explanation.statement.invoice;
    Ok(Json(ExplanationResponse {
        invoice: id,
        month: month.to_string(),
        status: state.status(),
        as_of: cutoff.as_of.to_string(),
        known_at: known_at.map(|known_at| known_at.to_string()),
        currency: invoice.currency.code(),
        lines: explanation.lines(),
        sums: explanation.sums(),
        subtotal: invoice.subtotal.to_string(),
        rounding: invoice.rounding.cut(DIGITS),
        unexplained: explanation.unexplained(),
        corrections: corrections.collect(),
        adjustments: state.adjustments().iter().map(InvoiceAdjustmentResponse::from).collect(),
        days: explanation.days(),
        intervals,
    }))
}

/// An invoice and the statement that explains it.
struct Explanation<'i> {
    organization: Uuid,
    /// `None` for a draft.
    finalized: Option<&'i InvoiceFinalized>,
    statement: Statement,
}

impl Explanation<'_> {
    /// Returns the lines, each by tier and by day.
    fn lines(&self) -> Vec<ExplainedLineResponse> {
        let Statement { usage: used, invoice, .. } = &self.statement;
        let mut lines = Vec::new();
        for line in &invoice.lines {
            let parts = used.parts.iter().map(|part| (part.term, part.metered));
            let mut days = Vec::new();
            for step in steps(line, &used.terms, parts) {
                let Some(part) = used.parts.get(step.part) else { continue };
                let amount = step.tiers.iter().fold(Exact::zero(), |sum, tier| sum.plus(&tier.amount));
                days.push(ExplainedLineDayResponse {
                    date: used.days.get(part.day).map(|(day, _)| day.date.to_string()),
                    start: part.span.start().to_string(),
                    end: part.span.end().to_string(),
                    metered: step.metered.to_string(),
                    exact_amount: amount.cut(DIGITS),
                    tiers: tiers(&step.tiers),
                });
            }
            lines.push(ExplainedLineResponse {
                meter: line.meter.as_str(),
                plan: line.plan.plan.clone(),
                plan_version: line.plan.version,
                own_price: line.own,
                unit: line.quantity.unit.symbol(),
                metered: line.quantity.metered.to_string(),
                quantity: line.quantity.to_string(),
                exact_amount: line.exact.cut(DIGITS),
                amount: line.amount.to_string(),
                tiers: tiers(&line.parts),
                days,
            });
        }
        lines
    }

    /// Returns the amounts computed from the lines. Those of a finalized invoice are the stored ones.
    fn sums(&self) -> Vec<ExplainedSumResponse> {
        let Statement { invoice, adjustments, .. } = &self.statement;
        let sum = |what, computed: &Amount, stored: fn(&InvoiceFinalized) -> &String| ExplainedSumResponse {
            what,
            percent: None,
            minimum: None,
            amount: self.finalized.map_or_else(|| computed.to_string(), |finalized| stored(finalized).clone()),
        };
        let stored_percent = self.finalized.map(|finalized| finalized.discount_percent.clone());
        let discount_percent = stored_percent
            .filter(|percent| !percent.is_empty())
            .unwrap_or_else(|| adjustments.discount_percent.to_string());
        let corrections = ExplainedSumResponse {
            what: "corrections",
            percent: None,
            minimum: None,
            amount: invoice.corrections.to_string(),
        };
        vec![
            sum("subtotal", &invoice.subtotal, |stored| &stored.subtotal),
            ExplainedSumResponse {
                percent: Some(discount_percent),
                ..sum("discount", &invoice.discount, |stored| &stored.discount)
            },
            ExplainedSumResponse {
                minimum: Some(adjustments.minimum.to_string()),
                ..sum("minimum_true_up", &invoice.minimum_true_up, |stored| &stored.minimum_true_up)
            },
            ExplainedSumResponse {
                percent: Some(adjustments.tax_percent.to_string()),
                ..sum("tax", &invoice.tax, |stored| &stored.tax)
            },
            corrections,
            sum("total", &invoice.total, |stored| &stored.total),
            sum("credit_applied", &invoice.credit_applied, |stored| &stored.credit_applied),
            sum("amount_due", &invoice.amount_due, |stored| &stored.amount_due),
        ]
    }

    /// Returns a correction with the path of the explanation of the corrected invoice, as known when the correction was settled.
    fn correction(&self, correction: &Correction, known_at: Option<Timestamp>) -> ExplainedCorrectionResponse {
        let known_at = known_at.unwrap_or(self.statement.usage.cutoff.as_of);
        let path =
            format!("/api/v1/organizations/{}/invoices/{}/explanation", self.organization, correction.invoice_id);
        ExplainedCorrectionResponse {
            invoice: correction.invoice_id,
            month: correction.month.clone(),
            meter: correction.meter.clone(),
            plan: correction.plan.clone(),
            plan_version: correction.plan_version,
            amount: correction.amount.clone(),
            explanation: format!("{path}?known_at={known_at}"),
        }
    }

    /// Returns the days. Those of a finalized invoice have the usage from late events, by which they differ from the stored days.
    fn days(&self) -> Vec<ExplainedDayResponse> {
        let stored: BTreeMap<&str, &FinalizedDay> =
            self.finalized.iter().flat_map(|finalized| &finalized.days).map(|day| (day.date.as_str(), day)).collect();
        let mut days = Vec::new();
        for (day, metered) in &self.statement.usage.days {
            let date = day.date.to_string();
            let later = |now: i128, stored: &str| (now - stored.parse().unwrap_or(0_i128)).to_string();
            let stored = stored.get(date.as_str());
            days.push(ExplainedDayResponse {
                start: day.span.start().to_string(),
                end: day.span.end().to_string(),
                byte_ms: metered.byte_ms.to_string(),
                run_ms: metered.run_ms.to_string(),
                late_byte_ms: stored.map(|stored| later(metered.byte_ms, &stored.byte_milliseconds)),
                late_run_ms: stored.map(|stored| later(metered.run_ms, &stored.run_milliseconds)),
                date,
            });
        }
        days
    }

    /// Returns the lines of a finalized invoice minus those of its explanation, without the equal ones.
    fn unexplained(&self) -> Option<Vec<UnexplainedLineResponse>> {
        let (finalized, invoice) = (self.finalized?, &self.statement.invoice);
        let zero = || (0_i128, Amount::zero(invoice.currency));
        let mut differences: BTreeMap<(&str, &str, String), (i128, Amount)> = BTreeMap::new();
        for line in &finalized.lines {
            let key = (line.meter.as_str(), line.plan.as_str(), line.plan_version.to_string());
            let (metered, amount) = differences.entry(key).or_insert_with(zero);
            *metered += line.metered.parse().unwrap_or(0_i128);
            // This service wrote the stored amount, so it parses.
            *amount = amount.plus(&Amount::read(&line.amount, invoice.currency).unwrap_or_else(|_| zero().1));
        }
        for line in &invoice.lines {
            let key = (line.meter.as_str(), line.plan.plan.as_str(), line.plan.version.to_string());
            let (metered, amount) = differences.entry(key).or_insert_with(zero);
            *metered -= line.quantity.metered;
            *amount = amount.minus(&line.amount);
        }
        differences.retain(|_, (metered, amount)| *metered != 0 || !amount.is_zero());
        let response = |((meter, plan, plan_version), (metered, amount)): ((&str, &str, String), (i128, Amount))| {
            UnexplainedLineResponse {
                meter: meter.to_owned(),
                plan: plan.to_owned(),
                plan_version,
                metered: metered.to_string(),
                amount: amount.to_string(),
            }
        };
        Some(differences.into_iter().map(response).collect())
    }
}

fn tiers(parts: &[ChargePart]) -> Vec<ExplainedTierResponse> {
    let tier = |part: &ChargePart| ExplainedTierResponse {
        tier: part.tier,
        quantity: part.quantity.cut(DIGITS),
        amount: part.amount.cut(DIGITS),
    };
    parts.iter().map(tier).collect()
}
