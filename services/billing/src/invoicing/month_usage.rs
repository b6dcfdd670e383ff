//! Usage of an account in a month, and the statement that prices it.
//!
//! Usage is read from rollups, so that the cost of a read depends on the number of days and not of events. All of a month is read from
//! one snapshot. With a cutoff in the past, a read returns the usage that was known then.

use bigdecimal::num_bigint::BigInt;
use epoch::Timestamp;
use rating::{
    account::Account,
    calendar::{
        day::{Day, days},
        month::Month,
        span::{Span, Window},
    },
    rating::{
        rate::{Adjustments, Invoice, rate_with},
        term::{Term, terms_of},
        usage_amounts::UsageAmounts,
    },
    sharing::rule::SharingRules,
};
use usage::queries::{
    snapshot::Snapshot,
    usage_by_term::{UsageByTerm, UsageSpans},
    usage_query::UsageQuery,
};
use uuid::Uuid;

use crate::invoicing::{error::LedgerError, ledger::Ledger};

/// The instants up to which usage is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cutoff {
    /// Usage after this instant does not count.
    pub as_of: Timestamp,
    /// Events recorded after this instant do not count. `None` counts all.
    pub known_at: Option<Timestamp>,
}

impl Cutoff {
    /// Returns a cutoff of usage that counts all recorded events.
    #[must_use]
    pub const fn as_of(as_of: Timestamp) -> Self {
        Self { as_of, known_at: None }
    }
}

/// Usage of an account in a month, before pricing.
#[derive(Debug, Clone)]
pub struct MonthUsage {
    pub month: Month,
    pub period: Span,
    pub cutoff: Cutoff,
    /// The IANA time zone of the days.
    pub time_zone: String,
    /// The usage in each term, in order of time.
    pub terms: Vec<(Term, UsageAmounts)>,
    /// The usage on each day.
    pub days: Vec<(Day, UsageAmounts)>,
    /// The days, divided where another term begins, in order of time.
    pub parts: Vec<DayPart>,
    /// Whether jobs are still running or files are still stored, so that the usage grows after `as_of`.
    pub provisional: bool,
}

/// A month of an account, priced.
#[derive(Debug, Clone)]
pub struct Statement {
    pub usage: MonthUsage,
    /// Discount, minimum, tax and credit.
    pub adjustments: Adjustments,
    pub invoice: Invoice,
}

/// Usage in a part of a day in which one term applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayPart {
    /// The index of the day in [`MonthUsage::days`].
    pub day: usize,
    /// The index of the term in [`MonthUsage::terms`].
    pub term: usize,
    pub span: Span,
    pub metered: UsageAmounts,
}

impl MonthUsage {
    /// Prices the usage. `corrections` is the sum of the corrections of earlier invoices, in minor units of the currency.
    ///
    /// # Errors
    /// [`LedgerError`] for an empty period, and for usage that cannot be priced.
    pub fn statement(self, account: &Account, corrections: &BigInt) -> Result<Statement, LedgerError> {
        let adjustments = adjustments(account, &self.terms)?;
        let invoice = rate_with(&self.terms, &adjustments, corrections)?.ok_or(LedgerError::EmptyPeriod)?;
        Ok(Statement { usage: self, adjustments, invoice })
    }
}

impl Ledger {
    /// Reads the usage of an account in a month.
    ///
    /// # Errors
    /// [`LedgerError`] when the plans, the terms or the usage cannot be read.
    pub async fn month_usage(
        &self,
        organization: Uuid,
        account: &Account,
        month: Month,
        cutoff: Cutoff,
    ) -> Result<MonthUsage, LedgerError> {
        let (period, zone) = self.period(account, month)?;
        let terms = terms_of(account, &self.assigned_plans(account).await?, &self.standard, period)?;
        let days = days(period, &zone)?;
        let (of_terms, of_days): (Vec<_>, Vec<_>) = (spans(&terms), days.iter().map(|day| day.span).collect());
        let cut = divide_days(&of_days, &of_terms);
        let of_parts: Vec<_> = cut.iter().map(|part| part.span).collect();
        let mut snapshot = self.snapshot(organization, period, cutoff).await?;
        let spans = UsageSpans { terms: &of_terms, days: &of_days, intervals: &of_parts };
        let UsageByTerm { by_term, by_day, by_interval, provisional } = snapshot.usage_by_term(spans).await?;
        Ok(MonthUsage {
            month,
            period,
            cutoff,
            time_zone: zone.iana_name().unwrap_or("UTC").to_owned(),
            terms: terms.into_iter().zip(by_term).collect(),
            days: days.into_iter().zip(by_day).collect(),
            parts: cut.into_iter().zip(by_interval).map(|(part, metered)| DayPart { metered, ..part }).collect(),
            provisional,
        })
    }

    /// Returns the terms of an organization in a period. The standard plan applies without an account.
    ///
    /// # Errors
    /// [`LedgerError`] when the account or its plans cannot be read.
    pub async fn terms(&self, organization: Uuid, period: Span) -> Result<Vec<Term>, LedgerError> {
        let account = self.accounts.load(organization).await?.state;
        Ok(terms_of(&account, &self.assigned_plans(&account).await?, &self.standard, period)?)
    }

    /// Returns the rules by which an organization's jobs share files in a period. The plan at each instant defines the rule.
    ///
    /// # Errors
    /// [`LedgerError`] when the account or its plans cannot be read.
    pub async fn rules(&self, organization: Uuid, period: Span) -> Result<SharingRules, LedgerError> {
        Ok(SharingRules::of(&self.terms(organization, period).await?))
    }

    /// Opens a snapshot of the read models for queries about a period.
    ///
    /// # Errors
    /// [`LedgerError`] when the database cannot be read.
    pub async fn snapshot(&self, organization: Uuid, period: Span, cutoff: Cutoff) -> Result<Snapshot, LedgerError> {
        let window = Window { period, as_of: cutoff.as_of };
        Ok(Snapshot::of(self.store.pool(), UsageQuery { organization, window, known_at: cutoff.known_at }).await?)
    }
}

/// Divides days where terms begin. The parts have no usage yet.
fn divide_days(days: &[Span], terms: &[Span]) -> Vec<DayPart> {
    let mut parts = Vec::with_capacity(days.len() + terms.len());
    for (day, whole) in days.iter().enumerate() {
        for (term, applies) in terms.iter().enumerate() {
            let span = whole.intersect(*applies);
            if !span.is_empty() {
                parts.push(DayPart { day, term, span, metered: UsageAmounts::default() });
            }
        }
    }
    parts
}

pub(crate) fn spans(terms: &[Term]) -> Vec<Span> {
    terms.iter().map(|term| term.span).collect()
}

/// Returns discount, minimum, tax and credit. The last plan of the period defines the minimum and the tax.
pub(super) fn adjustments(account: &Account, usage: &[(Term, UsageAmounts)]) -> Result<Adjustments, LedgerError> {
    let Some((last, _)) = usage.last() else { return Err(LedgerError::EmptyPeriod) };
    Ok(Adjustments {
        discount_percent: account.discount_percent(),
        minimum: last.plan.minimum.clone(),
        tax_percent: last.plan.tax_percent.clone(),
        credit: account.credit()?.non_negative().decimal(),
    })
}

/// Prices usage with the account's adjustments. `corrections` is in minor units of the currency.
pub(super) fn invoice(
    account: &Account,
    usage: &[(Term, UsageAmounts)],
    corrections: &BigInt,
) -> Result<Invoice, LedgerError> {
    rate_with(usage, &adjustments(account, usage)?, corrections)?.ok_or(LedgerError::EmptyPeriod)
}
