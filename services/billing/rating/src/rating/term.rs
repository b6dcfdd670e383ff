//! Terms: the plan that applies to an account, by time.
//!
//! Invariant: the terms of a period partition it. In each term the account has one plan version with its
//! price overrides, all in the currency of the account. The standard plan applies to organizations without an
//! account, and to accounts that were opened before accounts were pinned to a plan.

use std::{collections::BTreeMap, sync::Arc};

use epoch::Timestamp;

use crate::{
    account::{Account, AccountError, Pin},
    calendar::span::Span,
    pricing::plan::{Plan, PlanVersion},
    sharing::rule::SharingRules,
    validation::InvalidInput,
};

/// The instant from which a plan applies.
#[derive(Debug, Clone)]
pub struct Subscription {
    pub from: Timestamp,
    pub plan: Arc<Plan>,
}

/// A part of a period in which one plan applies.
#[derive(Debug, Clone)]
pub struct Term {
    /// Not empty.
    pub span: Span,
    pub plan: Arc<Plan>,
}

/// Splits a period into terms, starting with the first subscription. Subscriptions come in order of time.
#[must_use]
pub fn terms(period: Span, subscriptions: &[Subscription]) -> Vec<Term> {
    let mut terms: Vec<Term> = Vec::new();
    for (index, subscription) in subscriptions.iter().enumerate() {
        let end = subscriptions.get(index + 1).map_or(period.end(), |next| next.from);
        let span = Span::new(subscription.from, end).intersect(period);
        if !span.is_empty() {
            terms.push(Term { span, plan: Arc::clone(&subscription.plan) });
        }
    }
    terms
}

impl SharingRules {
    /// Returns the sharing rules of the plans that apply, in order of time.
    #[must_use]
    pub fn of(terms: &[Term]) -> Self {
        terms.iter().map(|term| (term.span.start(), term.plan.split)).collect()
    }
}

/// Reasons the terms of an account cannot be determined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TermError {
    /// The plan has another currency. This happens where the standard plan would apply.
    #[error(
        "plan {} version {} applies from {at} and uses {currency}, but the account uses {account}: assign a plan in {account}",
        plan.plan, plan.version
    )]
    OtherCurrency {
        account: &'static str,
        plan: PlanVersion,
        currency: &'static str,
        /// The instant from which the plan applies.
        at: Timestamp,
    },
    /// The account is not open or cannot be parsed.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// A plan is missing, or a price cannot be parsed.
    #[error(transparent)]
    InvalidInput(#[from] InvalidInput),
}

/// Returns the terms of an account in a period; `plans` are the versions that the account is pinned to.
///
/// # Errors
/// [`TermError`].
pub fn terms_of(
    account: &Account,
    plans: &BTreeMap<Pin, Plan>,
    standard: &Plan,
    period: Span,
) -> Result<Vec<Term>, TermError> {
    let mut subscriptions = vec![subscription_at(account, plans, standard, period.start())?];
    for at in account.changes() {
        if period.start() < at && at < period.end() {
            subscriptions.push(subscription_at(account, plans, standard, at)?);
        }
    }
    Ok(terms(period, &subscriptions))
}

fn subscription_at(
    account: &Account,
    plans: &BTreeMap<Pin, Plan>,
    standard: &Plan,
    at: Timestamp,
) -> Result<Subscription, TermError> {
    let mut plan = match account.pin_at(at) {
        None => standard.clone(),
        Some(pin) => {
            let plan = plans.get(&pin).cloned();
            plan.ok_or_else(|| InvalidInput::new("plan", format!("{} has no version {}", pin.plan, pin.version)))?
        }
    };
    if account.is_open() {
        let (account, currency) = (account.currency()?.code(), plan.currency.code());
        if account != currency {
            return Err(TermError::OtherCurrency { account, plan: plan.key, currency, at });
        }
    }
    for charge in account.price_overrides_at(at)? {
        plan = plan.with_override(charge);
    }
    Ok(Subscription { from: at, plan: Arc::new(plan) })
}
