//! What another plan would have cost.
//!
//! The invariant: the simulated amount is what a statement would say if the account had had the plan from the period's
//! start; only the plan differs. Usage that was is compared, not usage that would have been.

use std::sync::Arc;

use bigdecimal::num_bigint::BigInt;
use epoch::Timestamp;
use sqlx::Row;
use uuid::Uuid;

use super::{Ledger, LedgerError, When, invoice, spans};
use crate::domain::{charging::terms_of, currency::Currency, money::Amount, plan::Plan, rating::Term, span::Span};

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

/// What a plan changes for accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effects {
    /// By organization.
    pub effects: Vec<Effect>,
    /// The sum of all differences, simulated without actual.
    pub total: Amount,
    /// Accounts of other currencies, which can't be compared.
    pub skipped: usize,
}

impl Ledger {
    /// What a plan changes for accounts, by their usage in a period.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn simulate(
        &self,
        organizations: &[Uuid],
        plan: &Arc<Plan>,
        period: Span,
        as_of: Timestamp,
    ) -> Result<Effects, LedgerError> {
        let mut effects = Effects { effects: Vec::new(), total: Amount::zero(plan.currency), skipped: 0 };
        for organization in organizations {
            match self.effect(*organization, plan, period, as_of).await? {
                Some(effect) => {
                    effects.total = effects.total.plus(&effect.simulated.minus(&effect.actual));
                    effects.effects.push(effect);
                }
                None => effects.skipped += 1,
            }
        }
        Ok(effects)
    }

    async fn effect(
        &self,
        organization: Uuid,
        plan: &Arc<Plan>,
        period: Span,
        as_of: Timestamp,
    ) -> Result<Option<Effect>, LedgerError> {
        let account = self.account(organization).await?;
        if account.currency()? != plan.currency {
            return Ok(None);
        }
        let terms = terms_of(&account, &self.plans_of(&account).await?, &self.standard, period)?;
        let mut snapshot = self.snapshot(organization, period, When::as_of(as_of)).await?;
        let [by_term, whole] = snapshot.charged([&spans(&terms), &[period]]).await?.lists;
        drop(snapshot);
        let none = BigInt::from(0);
        let by_term: Vec<_> = terms.into_iter().zip(by_term).collect();
        let actual = invoice(&account, &by_term, &none)?;
        if actual.currency != plan.currency {
            return Ok(None);
        }
        let instead = Term { span: period, plan: Arc::clone(plan) };
        let instead: Vec<_> = whole.into_iter().map(|metered| (instead.clone(), metered)).collect();
        let simulated = invoice(&account, &instead, &none)?;
        Ok(Some(Effect { organization, actual: actual.total, simulated: simulated.total }))
    }

    /// Up to `limit` accounts of a currency after one, by id.
    ///
    /// # Errors
    /// When the database gives no answer.
    pub async fn accounts_after(
        &self,
        after: Option<Uuid>,
        currency: Currency,
        limit: i64,
    ) -> Result<Vec<Uuid>, sqlx::Error> {
        let list = "select organization_id from billing_accounts where organization_id > $1 and currency = $2 \
             order by organization_id limit $3";
        let after = after.unwrap_or(Uuid::nil());
        let rows = sqlx::query(list).bind(after).bind(currency.code()).bind(limit).fetch_all(self.store.pool()).await?;
        rows.iter().map(|row| row.try_get("organization_id")).collect()
    }
}
