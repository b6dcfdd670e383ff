//! What another plan would have cost.
//!
//! The problem: "what would it have cost?" is answered by what an invoice would have said, and invoices are of months.
//!
//! The invariant: the simulated amount is what the statements of the account's months would say, added up, if it had had the plan
//! all the time; only the plan differs. So an account's own prices stay, from when they hold; a month that lies in the period by a
//! part is a month of that part; and the plan that an account has makes no difference. Usage that was is compared, not usage that
//! would have been. All months are read at once.

use std::{cmp::Ordering, sync::Arc};

use bigdecimal::num_bigint::BigInt;
use epoch::Timestamp;
use rating::{
    calendar::span::Span,
    money::{amount::Amount, currency::Currency},
    pricing::plan::Plan,
    rating::term::{Term, TermError, terms_of},
};
use sqlx::Row;
use usage::queries::usage_by_term::UsageSpans;
use uuid::Uuid;

use crate::invoicing::{
    error::LedgerError,
    ledger::Ledger,
    month_usage::{When, invoice, spans},
};

/// What a plan changes for one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// Whose account.
    pub organization: Uuid,
    /// The total by what it is charged by.
    pub actual: Amount,
    /// The total by the simulated plan.
    pub simulated: Amount,
}

impl Effect {
    /// What it pays more by the simulated plan.
    #[must_use]
    pub fn difference(&self) -> Amount {
        self.simulated.minus(&self.actual)
    }
}

/// What a plan changes for accounts, in sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums {
    /// The sum of their totals by what they are charged by.
    pub actual: Amount,
    /// The sum of their totals by the simulated plan.
    pub simulated: Amount,
    /// How many pay less.
    pub winners: u64,
    /// How many pay more.
    pub losers: u64,
    /// How many pay the same.
    pub unchanged: u64,
    /// How many can't be compared: what they are charged by is in another currency.
    pub skipped: u64,
}

impl Sums {
    /// Of no account.
    #[must_use]
    pub fn none(currency: Currency) -> Self {
        let zero = || Amount::zero(currency);
        Self { actual: zero(), simulated: zero(), winners: 0, losers: 0, unchanged: 0, skipped: 0 }
    }

    /// What all of them pay more by the simulated plan.
    #[must_use]
    pub fn effect(&self) -> Amount {
        self.simulated.minus(&self.actual)
    }

    fn take(&mut self, effect: &Effect) {
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

/// What a plan changes for accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effects {
    /// By organization, without those that can't be compared.
    pub effects: Vec<Effect>,
    /// With those that were looked at before.
    pub so_far: Sums,
}

impl Ledger {
    /// What a plan changes for accounts, by their usage in a period; and in sum, with those that were looked at before.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn simulate(
        &self,
        organizations: &[Uuid],
        plan: &Plan,
        period: Span,
        as_of: Timestamp,
        so_far: Sums,
    ) -> Result<Effects, LedgerError> {
        let mut effects = Effects { effects: Vec::new(), so_far };
        for organization in organizations {
            match self.effect(*organization, plan, period, as_of).await? {
                Some(effect) => {
                    effects.so_far.take(&effect);
                    effects.effects.push(effect);
                }
                None => effects.so_far.skipped += 1,
            }
        }
        Ok(effects)
    }

    async fn effect(
        &self,
        organization: Uuid,
        plan: &Plan,
        period: Span,
        as_of: Timestamp,
    ) -> Result<Option<Effect>, LedgerError> {
        let account = self.account(organization).await?;
        if account.currency()? != plan.currency {
            return Ok(None);
        }
        let plans = self.plans_of(&account).await?;
        let mut months = Vec::new();
        for month in self.months_of(&account, period)? {
            match terms_of(&account, &plans, &self.standard, month.intersect(period)) {
                Err(TermError::OtherCurrency { .. }) => return Ok(None),
                terms => months.push(terms?),
            }
        }
        let mut snapshot = self.snapshot(organization, period, When::as_of(as_of)).await?;
        let of_terms = UsageSpans { terms: &spans(&months.concat()), ..UsageSpans::default() };
        let metered = snapshot.usage_by_term(of_terms).await?.by_term;
        drop(snapshot);
        let (mut metered, none) = (metered.into_iter(), BigInt::from(0));
        let zero = Amount::zero(plan.currency);
        let mut effect = Effect { organization, actual: zero.clone(), simulated: zero };
        for terms in months {
            let actual: Vec<_> = terms.into_iter().zip(metered.by_ref()).collect();
            let simulated: Vec<_> =
                actual.iter().map(|(term, metered)| (instead(plan, term), metered.clone())).collect();
            effect.actual = effect.actual.plus(&invoice(&account, &actual, &none)?.total);
            effect.simulated = effect.simulated.plus(&invoice(&account, &simulated, &none)?.total);
        }
        Ok(Some(effect))
    }

    /// Up to `limit` accounts after one, by id.
    ///
    /// # Errors
    /// When the database gives no answer.
    pub async fn accounts_after(&self, after: Option<Uuid>, limit: i64) -> Result<Vec<Uuid>, sqlx::Error> {
        let list = "select organization_id from billing_accounts where organization_id > $1 \
             order by organization_id limit $2";
        let rows = sqlx::query(list).bind(after.unwrap_or(Uuid::nil())).bind(limit);
        let rows = rows.fetch_all(self.store.pool()).await?;
        rows.iter().map(|row| row.try_get("organization_id")).collect()
    }
}

/// A term under another plan: with the prices that are the account's own in it.
fn instead(plan: &Plan, term: &Term) -> Term {
    let own = term.plan.overridden.iter().filter_map(|meter| term.plan.charges.get(meter));
    let plan = own.fold(plan.clone(), |plan, charge| plan.with_override(charge.clone()));
    Term { span: term.span, plan: Arc::new(plan) }
}
