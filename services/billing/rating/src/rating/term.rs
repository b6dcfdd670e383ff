//! What an account is charged by, from when to when.
//!
//! The invariant: the terms of a period partition it. In each the account has one version of one plan with those prices that are its
//! own, all in its own currency. An account is pinned from its opening on; the installation's prices stand in for those that were opened
//! before that was so, and for organizations without an account.

use std::{collections::BTreeMap, sync::Arc};

use epoch::Timestamp;

use crate::{
    account::{Account, AccountError, Pin},
    calendar::span::Span,
    pricing::plan::{Plan, PlanVersion},
    sharing::rule::Rules,
    validation::Refused,
};

/// From when on which plan applies.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// From when.
    pub from: Timestamp,
    /// The plan.
    pub plan: Arc<Plan>,
}

/// A part of a period in which one plan applies.
#[derive(Debug, Clone)]
pub struct Term {
    /// From when to when; not empty.
    pub span: Span,
    /// The plan.
    pub plan: Arc<Plan>,
}

/// The terms of a period, from the first subscription on; subscriptions come in order of their beginnings.
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

impl Rules {
    /// Those of the plans that apply, in order of time.
    #[must_use]
    pub fn of(terms: &[Term]) -> Self {
        terms.iter().map(|term| (term.span.start(), term.plan.split)).collect()
    }
}

/// Why it can't be said what an account is charged by.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChargingError {
    /// The plan is in another currency, which happens where the installation's prices would have to stand in.
    #[error(
        "from {at} on plan {} version {} would apply, which is in {currency}, and the account is in {account}: assign it a plan in {account}",
        plan.plan, plan.version
    )]
    OtherCurrency {
        /// The account's.
        account: &'static str,
        /// Which plan.
        plan: PlanVersion,
        /// The plan's.
        currency: &'static str,
        /// From when on.
        at: Timestamp,
    },
    /// What the account says can't be read.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// A plan isn't there, or a price can't be read.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// What an account is charged by in a period; `plans` are those that it is pinned to.
///
/// # Errors
/// [`ChargingError`].
pub fn terms_of(
    account: &Account,
    plans: &BTreeMap<Pin, Plan>,
    standard: &Plan,
    period: Span,
) -> Result<Vec<Term>, ChargingError> {
    let mut subscriptions = vec![in_force(account, plans, standard, period.start())?];
    for at in account.changes() {
        if period.start() < at && at < period.end() {
            subscriptions.push(in_force(account, plans, standard, at)?);
        }
    }
    Ok(terms(period, &subscriptions))
}

fn in_force(
    account: &Account,
    plans: &BTreeMap<Pin, Plan>,
    standard: &Plan,
    at: Timestamp,
) -> Result<Subscription, ChargingError> {
    let mut plan = match account.pin_at(at) {
        None => standard.clone(),
        Some(pin) => {
            let plan = plans.get(&pin).cloned();
            plan.ok_or_else(|| Refused::new("plan", format!("{} has no version {}", pin.plan, pin.version)))?
        }
    };
    if account.is_open() {
        let (account, currency) = (account.currency()?.code(), plan.currency.code());
        if account != currency {
            return Err(ChargingError::OtherCurrency { account, plan: plan.key, currency, at });
        }
    }
    for charge in account.own_charges_at(at)? {
        plan = plan.with_own(charge);
    }
    Ok(Subscription { from: at, plan: Arc::new(plan) })
}
