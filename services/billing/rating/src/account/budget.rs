//! The budget of an account and its alerts.
//!
//! Each threshold raises one alert a month for the actual amount and one for the forecast. Changing the
//! amount makes a new budget, which raises all of its alerts again. Months that ended before a budget was set
//! raise no alerts. Jobs stop only if the budget has `hard_stop`.

use std::collections::BTreeSet;

use contracts::billing_account::{BudgetExceeded, BudgetSet};
use epoch::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    account::command::Decision,
    calendar::month::Month,
    money::{amount::Amount, currency::Currency, decimal::Decimal},
    validation::InvalidInput,
};

/// The maximum number of thresholds of a budget.
const MAX_THRESHOLDS: usize = 20;
/// The threshold at which a budget is used up, in percent.
pub(super) const USED_UP: i32 = 100;

/// A budget and the alerts it has raised.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spending {
    pub(super) budget: Option<BudgetSet>,
    /// Alerts raised so far: month, kind and threshold. Serialized under its original name, since snapshots
    /// store it.
    #[serde(rename = "said")]
    pub(super) raised: BTreeSet<(String, String, i32)>,
}

impl Spending {
    pub(super) fn set(
        &self,
        currency: Currency,
        amount: Option<&Decimal>,
        thresholds: &[i32],
        hard_stop: bool,
        now: Timestamp,
    ) -> Decision {
        if let Some(amount) = amount {
            let amount = Amount::from_decimal(amount, currency).map_err(|error| InvalidInput::new("amount", error))?;
            if amount.is_zero() {
                return Err(InvalidInput::new("amount", "is zero; use null for no budget").into());
            }
        }
        let mut ascending: BTreeSet<i32> = thresholds.iter().copied().collect();
        if thresholds.len() > MAX_THRESHOLDS || ascending.iter().any(|threshold| !(1..=1_000).contains(threshold)) {
            let reason = format!("at most {MAX_THRESHOLDS} hundredths from 1 to 1000");
            return Err(InvalidInput::new("thresholds", reason).into());
        }
        if hard_stop {
            ascending.insert(USED_UP);
        }
        let set = BudgetSet {
            amount: amount.map(ToString::to_string),
            thresholds: ascending.into_iter().collect(),
            hard_stop,
            set_at: Some(now),
        };
        let same = |known: &BudgetSet| BudgetSet { set_at: known.set_at, ..set.clone() } == *known;
        if self.budget.as_ref().is_some_and(same) {
            return Ok(vec![]);
        }
        Ok(vec![set.into()])
    }

    pub(super) fn check(
        &self,
        currency: Currency,
        month: Month,
        actual: &Amount,
        forecast: Option<&Amount>,
    ) -> Decision {
        let Some(BudgetSet { amount: Some(amount), thresholds, .. }) = &self.budget else { return Ok(vec![]) };
        let budget: Decimal = amount.parse().map_err(|error| InvalidInput::new("budget", error))?;
        let budget = Amount::from_decimal(&budget, currency).map_err(|error| InvalidInput::new("budget", error))?;
        let mut events = Vec::new();
        for (kind, reached) in [("actual", Some(actual)), ("forecast", forecast)] {
            let Some(reached) = reached else { continue };
            for threshold in thresholds {
                let due = budget.exact_percent(&Decimal::from(threshold.unsigned_abs()));
                let key = (month.to_string(), kind.to_owned(), *threshold);
                if reached.exact() < due || self.raised.contains(&key) {
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

    pub(super) fn apply_budget(&mut self, set: &BudgetSet) {
        if self.budget.as_ref().is_none_or(|budget| budget.amount != set.amount) {
            self.raised.clear();
        }
        self.budget = Some(set.clone());
    }

    pub(super) fn apply_alert(&mut self, exceeded: &BudgetExceeded) {
        self.raised.insert((exceeded.month.clone(), exceeded.kind.clone(), exceeded.threshold));
    }
}

#[cfg(test)]
mod tests {
    use crate::account::{
        AccountCommand,
        decide::tests::{amount, apply, at, month, opened},
    };

    #[test]
    fn threshold_alerts_once_a_month_for_each_kind() {
        let mut account = opened();
        let budget = |amount: u32, thresholds: &[i32], now| AccountCommand::SetBudget {
            amount: Some(amount.into()),
            thresholds: thresholds.to_vec(),
            hard_stop: true,
            now: at(now),
        };
        apply(&mut account, &budget(100, &[80, 50], 7)).unwrap();
        assert_eq!(apply(&mut account, &budget(100, &[80, 50], 8)), Ok(0));
        assert_eq!((account.had_budget(at(7)), account.had_budget(at(8))), (false, true));
        let check = |month_, actual: &str, forecast: &str| AccountCommand::CheckBudget {
            month: month(month_),
            actual: amount(actual),
            forecast: Some(amount(forecast)),
        };
        assert_eq!(apply(&mut account, &check("2025-03", "49.99", "79.99")), Ok(1));
        assert_eq!(apply(&mut account, &check("2025-03", "50.00", "79.99")), Ok(1));
        assert_eq!(apply(&mut account, &check("2025-03", "50.00", "79.99")), Ok(0));
        assert!(account.jobs_allowed(month("2025-03")));
        assert_eq!(apply(&mut account, &check("2025-03", "100.00", "200.00")), Ok(4));
        assert!(!account.jobs_allowed(month("2025-03")) && account.jobs_allowed(month("2025-04")));
        assert_eq!(apply(&mut account, &check("2025-04", "50.00", "0.00")), Ok(1));
        let over = AccountCommand::CheckBudget { month: month("2025-04"), actual: amount("80.00"), forecast: None };
        assert_eq!(apply(&mut account, &over), Ok(1), "a month that is over has no forecast");
        apply(&mut account, &budget(500, &[], 9)).unwrap();
        assert!(account.jobs_allowed(month("2025-03")), "a larger budget allows jobs again");
    }
}
