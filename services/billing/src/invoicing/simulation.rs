//! Simulations: the costs of past usage under another plan.
//!
//! A simulated amount is the sum of the statements of the account's months as if the account had always had the plan. Only the plan
//! differs:
//! - Price overrides of the account keep applying from the instant of each.
//! - A month that lies partly in the period is priced as a month of that part.
//! - The result does not depend on the account's present plan.
//! - Past usage is repriced; changes of behaviour are not predicted.
//!
//! All months are read in one statement.

use std::{cmp::Ordering, sync::Arc};

use bigdecimal::num_bigint::BigInt;
use epoch::Timestamp;
use rating::{
    calendar::span::Span,
    money::{amount::Amount, currency::Currency},
    pricing::plan::Plan,
    rating::term::{Term, TermError, terms_of},
};
use usage::queries::usage_by_term::UsageSpans;
use uuid::Uuid;

use crate::invoicing::{
    error::LedgerError,
    ledger::Ledger,
    month_usage::{Cutoff, invoice, spans},
};

/// The effect of a plan on one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanEffect {
    pub organization: Uuid,
    /// The total at the account's prices.
    pub actual: Amount,
    /// The total under the simulated plan.
    pub simulated: Amount,
}

impl PlanEffect {
    /// Returns the simulated total minus the actual total.
    #[must_use]
    pub fn difference(&self) -> Amount {
        self.simulated.minus(&self.actual)
    }
}

/// The effect of a plan on several accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulationTotals {
    /// The sum of the actual totals.
    pub actual: Amount,
    /// The sum of the simulated totals.
    pub simulated: Amount,
    /// The number of accounts that pay less.
    pub winners: u64,
    /// The number of accounts that pay more.
    pub losers: u64,
    /// The number of accounts that pay the same.
    pub unchanged: u64,
    /// The number of accounts that are not comparable, because they are charged in another currency.
    pub skipped: u64,
}

impl SimulationTotals {
    /// Returns the totals of no accounts.
    #[must_use]
    pub fn none(currency: Currency) -> Self {
        let zero = || Amount::zero(currency);
        Self { actual: zero(), simulated: zero(), winners: 0, losers: 0, unchanged: 0, skipped: 0 }
    }

    /// Returns the simulated total minus the actual total.
    #[must_use]
    pub fn effect(&self) -> Amount {
        self.simulated.minus(&self.actual)
    }

    fn add(&mut self, effect: &PlanEffect) {
        self.actual = self.actual.plus(&effect.actual);
        self.simulated = self.simulated.plus(&effect.simulated);
        let count = match effect.simulated.cmp(&effect.actual) {
            Ordering::Less => &mut self.winners,
            Ordering::Equal => &mut self.unchanged,
            Ordering::Greater => &mut self.losers,
        };
        *count += 1;
    }
}

/// The result of simulating a plan on a page of accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Simulation {
    /// The effects on the comparable accounts of this page.
    pub effects: Vec<PlanEffect>,
    /// The totals of all pages so far.
    pub totals: SimulationTotals,
}

impl Ledger {
    /// Simulates a plan on the usage of accounts in a period. `totals` has the totals of earlier pages.
    ///
    /// # Errors
    /// [`LedgerError`] when an account or its usage cannot be read or priced.
    pub async fn simulate(
        &self,
        organizations: &[Uuid],
        plan: &Plan,
        period: Span,
        as_of: Timestamp,
        totals: SimulationTotals,
    ) -> Result<Simulation, LedgerError> {
        let mut simulation = Simulation { effects: Vec::new(), totals };
        for organization in organizations {
            match self.plan_effect(*organization, plan, period, as_of).await? {
                Some(effect) => {
                    simulation.totals.add(&effect);
                    simulation.effects.push(effect);
                }
                None => simulation.totals.skipped += 1,
            }
        }
        Ok(simulation)
    }

    /// Returns the effect of a plan on one account, or `None` when the account is charged in another currency.
    async fn plan_effect(
        &self,
        organization: Uuid,
        plan: &Plan,
        period: Span,
        as_of: Timestamp,
    ) -> Result<Option<PlanEffect>, LedgerError> {
        let account = self.account(organization).await?;
        if account.currency()? != plan.currency {
            return Ok(None);
        }
        let plans = self.assigned_plans(&account).await?;
        let mut months = Vec::new();
        for month in self.account_months(&account, period)? {
            match terms_of(&account, &plans, &self.standard, month.intersect(period)) {
                Err(TermError::OtherCurrency { .. }) => return Ok(None),
                terms => months.push(terms?),
            }
        }
        let mut snapshot = self.snapshot(organization, period, Cutoff::as_of(as_of)).await?;
        let of_terms = UsageSpans { terms: &spans(&months.concat()), ..UsageSpans::default() };
        let metered = snapshot.usage_by_term(of_terms).await?.by_term;
        drop(snapshot);
        let (mut metered, no_corrections) = (metered.into_iter(), BigInt::from(0));
        let zero = Amount::zero(plan.currency);
        let mut effect = PlanEffect { organization, actual: zero.clone(), simulated: zero };
        for terms in months {
            let actual: Vec<_> = terms.into_iter().zip(metered.by_ref()).collect();
            let simulated: Vec<_> =
                actual.iter().map(|(term, metered)| (under_plan(plan, term), metered.clone())).collect();
            effect.actual = effect.actual.plus(&invoice(&account, &actual, &no_corrections)?.total);
            effect.simulated = effect.simulated.plus(&invoice(&account, &simulated, &no_corrections)?.total);
        }
        Ok(Some(effect))
    }
}

/// Returns a term under another plan, with the term's price overrides.
fn under_plan(plan: &Plan, term: &Term) -> Term {
    let overrides = term.plan.overridden.iter().filter_map(|meter| term.plan.charges.get(meter));
    let plan = overrides.fold(plan.clone(), |plan, charge| plan.with_override(charge.clone()));
    Term { span: term.span, plan: Arc::new(plan) }
}
