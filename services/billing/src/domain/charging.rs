//! What an account is charged by, from when to when.
//!
//! The invariant: the terms of a period partition it. In each the account has one version of one plan, or the installation's
//! standard plan while it is pinned to none, with those prices that are its own.

use std::{collections::BTreeMap, sync::Arc};

use epoch::Timestamp;

use super::{
    account::{Account, Pin},
    plan::Plan,
    rating::{Subscription, Term, terms},
    refused::Refused,
    span::Span,
};

/// What an account is charged by in a period; `plans` are those that it is pinned to.
///
/// # Errors
/// [`Refused`] when a plan isn't there or a price can't be read.
pub fn terms_of(
    account: &Account,
    plans: &BTreeMap<Pin, Plan>,
    standard: &Plan,
    period: Span,
) -> Result<Vec<Term>, Refused> {
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
) -> Result<Subscription, Refused> {
    let mut plan = match account.pin_at(at) {
        None => standard.clone(),
        Some(pin) => {
            let plan = plans.get(&pin).cloned();
            plan.ok_or_else(|| Refused::new("plan", format!("{} has no version {}", pin.plan, pin.version)))?
        }
    };
    for charge in account.own_charges_at(at)? {
        plan = plan.with_own(charge);
    }
    Ok(Subscription { from: at, plan: Arc::new(plan) })
}
