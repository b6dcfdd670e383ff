//! What an account used, as the read models have it.
//!
//! The invariant: usage is read from the sums that metering keeps, so that it costs days and not events, and all of a month from one
//! snapshot of them. An instant of knowledge in the past gives what was known then.

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

/// As of when usage is asked for, and as known when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When {
    /// What happened later doesn't count.
    pub as_of: Timestamp,
    /// What was recorded later is not known yet; everything is known if it isn't said.
    pub known_at: Option<Timestamp>,
}

impl When {
    /// As of an instant, by all that is known.
    #[must_use]
    pub const fn as_of(as_of: Timestamp) -> Self {
        Self { as_of, known_at: None }
    }
}

/// What an account used in a month, not priced yet.
#[derive(Debug, Clone)]
pub struct Used {
    /// The month.
    pub month: Month,
    /// Its first instant and the first one after it.
    pub period: Span,
    /// As of when, and as known when.
    pub when: When,
    /// The IANA time zone of its days.
    pub time_zone: String,
    /// What was charged by and what was metered, in order of time.
    pub terms: Vec<(Term, UsageAmounts)>,
    /// What was metered, day by day.
    pub days: Vec<(Day, UsageAmounts)>,
    /// The days cut where another term begins, in order of time.
    pub parts: Vec<UsedPart>,
    /// Whether something still runs or is still stored that counts only up to `as_of`.
    pub provisional: bool,
}

/// What a month of an account comes to.
#[derive(Debug, Clone)]
pub struct Statement {
    /// What was used.
    pub used: Used,
    /// What is done with the sum of the lines.
    pub adjustments: Adjustments,
    /// Lines and sums.
    pub invoice: Invoice,
}

/// What was used in the part of a day in which one term applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedPart {
    /// The day's place among the days.
    pub day: usize,
    /// The term's place among the terms.
    pub term: usize,
    /// From when to when.
    pub span: Span,
    /// What was metered.
    pub metered: UsageAmounts,
}

impl Used {
    /// What it comes to, with corrections of earlier invoices in the smallest unit of the currency.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn statement(self, account: &Account, corrections: &BigInt) -> Result<Statement, LedgerError> {
        let adjustments = adjustments(account, &self.terms)?;
        let invoice = rate_with(&self.terms, &adjustments, corrections)?.ok_or(LedgerError::EmptyPeriod)?;
        Ok(Statement { used: self, adjustments, invoice })
    }
}

impl Ledger {
    /// What an account used in a month.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn used(
        &self,
        organization: Uuid,
        account: &Account,
        month: Month,
        when: When,
    ) -> Result<Used, LedgerError> {
        let (period, zone) = self.period(account, month)?;
        let terms = terms_of(account, &self.plans_of(account).await?, &self.standard, period)?;
        let days = days(period, &zone)?;
        let (of_terms, of_days): (Vec<_>, Vec<_>) = (spans(&terms), days.iter().map(|day| day.span).collect());
        let cut = cut(&of_days, &of_terms);
        let of_parts: Vec<_> = cut.iter().map(|(.., span)| *span).collect();
        let mut snapshot = self.snapshot(organization, period, when).await?;
        let spans = UsageSpans { terms: &of_terms, days: &of_days, intervals: &of_parts };
        let UsageByTerm { by_term, by_day, by_interval, provisional } = snapshot.usage_by_term(spans).await?;
        let part = |((day, term, span), metered)| UsedPart { day, term, span, metered };
        Ok(Used {
            month,
            period,
            when,
            time_zone: zone.iana_name().unwrap_or("UTC").to_owned(),
            terms: terms.into_iter().zip(by_term).collect(),
            days: days.into_iter().zip(by_day).collect(),
            parts: cut.into_iter().zip(by_interval).map(part).collect(),
            provisional,
        })
    }

    /// What an organization is charged by in a period; the standard plan as long as it has no account.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn terms(&self, organization: Uuid, period: Span) -> Result<Vec<Term>, LedgerError> {
        let account = self.accounts.load(organization).await?.state;
        Ok(terms_of(&account, &self.plans_of(&account).await?, &self.standard, period)?)
    }

    /// How an organization's jobs share files in a period: as the plan says that applies at each instant.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn rules(&self, organization: Uuid, period: Span) -> Result<SharingRules, LedgerError> {
        Ok(rule_of(&self.terms(organization, period).await?))
    }

    /// The read models, for questions about a period.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn snapshot(&self, organization: Uuid, period: Span, when: When) -> Result<Snapshot, LedgerError> {
        let window = Window { period, as_of: when.as_of };
        Ok(Snapshot::of(self.store.pool(), UsageQuery { organization, window, known_at: when.known_at }).await?)
    }
}

/// Days, cut where terms begin: the place of the day, that of the term, and what they have in common.
fn cut(days: &[Span], terms: &[Span]) -> Vec<(usize, usize, Span)> {
    let mut parts = Vec::with_capacity(days.len() + terms.len());
    for (day, whole) in days.iter().enumerate() {
        for (term, applies) in terms.iter().enumerate() {
            let span = whole.intersect(*applies);
            if !span.is_empty() {
                parts.push((day, term, span));
            }
        }
    }
    parts
}

/// The spans of terms.
pub(crate) fn spans(terms: &[Term]) -> Vec<Span> {
    terms.iter().map(|term| term.span).collect()
}

/// How files are shared in a period: as the plan says that applies at each instant.
pub(crate) fn rule_of(terms: &[Term]) -> SharingRules {
    SharingRules::of(terms)
}

/// What is done with the sum of the lines. The minimum and the tax are those of the last plan of the period.
pub(super) fn adjustments(account: &Account, usage: &[(Term, UsageAmounts)]) -> Result<Adjustments, LedgerError> {
    let Some((last, _)) = usage.last() else { return Err(LedgerError::EmptyPeriod) };
    Ok(Adjustments {
        discount_percent: account.discount_percent(),
        minimum: last.plan.minimum.clone(),
        tax_percent: last.plan.tax_percent.clone(),
        credit: account.credit()?.non_negative().decimal(),
    })
}

/// Lines and sums of what was used.
pub(super) fn invoice(
    account: &Account,
    usage: &[(Term, UsageAmounts)],
    corrections: &BigInt,
) -> Result<Invoice, LedgerError> {
    rate_with(usage, &adjustments(account, usage)?, corrections)?.ok_or(LedgerError::EmptyPeriod)
}
