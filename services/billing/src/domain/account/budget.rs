//! What an account wants to spend.
//!
//! The problem: an alert must neither be missed nor come twice, and jobs stop only where somebody asked for that.
//!
//! The invariant: each threshold of a budget is said once a month for what was used and once for what is forecast. Another amount is
//! another budget, of which everything is said anew.

use std::collections::BTreeSet;

use contracts::billing_account::{BudgetExceeded, BudgetSet};
use serde::{Deserialize, Serialize};

use super::{Account, decide::Decision};
use crate::domain::{currency::Currency, decimal::Decimal, money::Amount, month::Month, refused::Refused};

/// The most thresholds of a budget.
const MAX_THRESHOLDS: usize = 20;
/// The threshold at which a budget is used up, in hundredths.
const USED_UP: i32 = 100;

/// A budget and what was said of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spending {
    budget: Option<BudgetSet>,
    /// Month, kind and threshold.
    said: BTreeSet<(String, String, i32)>,
}

impl Account {
    /// Its budget.
    #[must_use]
    pub fn budget(&self) -> Option<&BudgetSet> {
        self.spending.budget.as_ref()
    }

    /// What was said of its budget: month, kind and threshold.
    pub fn said(&self) -> impl Iterator<Item = &(String, String, i32)> {
        self.spending.said.iter()
    }

    /// Whether new jobs may be queued in a month.
    #[must_use]
    pub fn jobs_allowed(&self, month: Month) -> bool {
        let stops = self.budget().is_some_and(|budget| budget.hard_stop && budget.amount.is_some());
        !stops || !self.spending.said.contains(&(month.to_string(), "actual".to_owned(), USED_UP))
    }
}

impl Spending {
    pub(super) fn set(
        &self,
        currency: Currency,
        amount: Option<&Decimal>,
        thresholds: &[i32],
        hard_stop: bool,
    ) -> Decision {
        if let Some(amount) = amount {
            let amount = Amount::given(amount, currency).map_err(|error| Refused::new("amount", error))?;
            if amount.is_zero() {
                return Err(Refused::new("amount", "is nothing; to have no budget, say null").into());
            }
        }
        let mut ascending: BTreeSet<i32> = thresholds.iter().copied().collect();
        if thresholds.len() > MAX_THRESHOLDS || ascending.iter().any(|threshold| !(1..=1_000).contains(threshold)) {
            let reason = format!("at most {MAX_THRESHOLDS} hundredths from 1 to 1000");
            return Err(Refused::new("thresholds", reason).into());
        }
        if hard_stop {
            ascending.insert(USED_UP);
        }
        let set = BudgetSet {
            amount: amount.map(ToString::to_string),
            thresholds: ascending.into_iter().collect(),
            hard_stop,
        };
        if self.budget.as_ref() == Some(&set) {
            return Ok(vec![]);
        }
        Ok(vec![set.into()])
    }

    pub(super) fn check(&self, currency: Currency, month: Month, actual: &Amount, forecast: &Amount) -> Decision {
        let Some(BudgetSet { amount: Some(amount), thresholds, .. }) = &self.budget else { return Ok(vec![]) };
        let budget: Decimal = amount.parse().map_err(|error| Refused::new("budget", error))?;
        let budget = Amount::given(&budget, currency).map_err(|error| Refused::new("budget", error))?;
        let mut events = Vec::new();
        for (kind, reached) in [("actual", actual), ("forecast", forecast)] {
            for threshold in thresholds {
                let due = budget.exact_percent(&Decimal::from(threshold.unsigned_abs()));
                let key = (month.to_string(), kind.to_owned(), *threshold);
                if reached.exact() < due || self.said.contains(&key) {
                    continue;
                }
                let exceeded = BudgetExceeded {
                    month: month.to_string(),
                    kind: kind.to_owned(),
                    threshold: *threshold,
                    amount: reached.to_string(),
                    budget: budget.to_string(),
                };
                events.push(exceeded.into());
            }
        }
        Ok(events)
    }

    pub(super) fn take_budget(&mut self, set: &BudgetSet) {
        if self.budget.as_ref().is_none_or(|budget| budget.amount != set.amount) {
            self.said.clear();
        }
        self.budget = Some(set.clone());
    }

    pub(super) fn take_said(&mut self, exceeded: &BudgetExceeded) {
        self.said.insert((exceeded.month.clone(), exceeded.kind.clone(), exceeded.threshold));
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::account::{
        AccountCommand,
        decide::tests::{amount, apply, month, opened},
    };

    #[test]
    fn a_threshold_is_said_once_a_month_for_each_kind() {
        let mut account = opened();
        let budget = AccountCommand::SetBudget { amount: Some(100.into()), thresholds: vec![80, 50], hard_stop: true };
        apply(&mut account, &budget).unwrap();
        assert_eq!(apply(&mut account, &budget), Ok(0));
        let check = |month_, actual: &str, forecast: &str| AccountCommand::CheckBudget {
            month: month(month_),
            actual: amount(actual),
            forecast: amount(forecast),
        };
        assert_eq!(apply(&mut account, &check("2025-03", "49.99", "79.99")), Ok(1));
        assert_eq!(apply(&mut account, &check("2025-03", "50.00", "79.99")), Ok(1));
        assert_eq!(apply(&mut account, &check("2025-03", "50.00", "79.99")), Ok(0));
        assert!(account.jobs_allowed(month("2025-03")));
        assert_eq!(apply(&mut account, &check("2025-03", "100.00", "200.00")), Ok(4));
        assert!(!account.jobs_allowed(month("2025-03")) && account.jobs_allowed(month("2025-04")));
        assert_eq!(apply(&mut account, &check("2025-04", "50.00", "0.00")), Ok(1));
        let more = AccountCommand::SetBudget { amount: Some(500.into()), thresholds: vec![], hard_stop: true };
        apply(&mut account, &more).unwrap();
        assert!(account.jobs_allowed(month("2025-03")), "with a larger budget jobs go on");
    }
}
