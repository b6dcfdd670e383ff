//! Checks an organization's budget before a job is queued.
//!
//! The check fails open: a job is refused only when billing answers that the budget forbids it. After a timeout or an
//! unreadable answer the job is allowed and counted in `job_standing_unknown_total`. An outage of billing must not stop the
//! jobs of every customer; the price is an occasional job over budget.

use std::time::Duration;

use http_kit::Problem;
use serde::Deserialize;
use service_host::peer::Peer;
use uuid::Uuid;

const TIMEOUT: Duration = Duration::from_millis(500);

/// Client of billing's budget endpoint.
#[derive(Debug, Clone)]
pub(crate) struct BudgetCheck {
    billing: Peer,
}

#[derive(Deserialize)]
struct BudgetResponse {
    jobs_allowed: bool,
}

impl BudgetCheck {
    pub(crate) fn new(billing: Peer) -> Self {
        Self { billing }
    }

    /// Checks that the organization may queue a job.
    ///
    /// # Errors
    /// 409 when the budget of the month is used up and the organization chose to stop jobs then.
    pub(crate) async fn require_budget(&self, organization: Uuid) -> Result<(), Problem> {
        let path = format!("/internal/v1/billing/organizations/{organization}/standing");
        match self.billing.get(&path).within(TIMEOUT).receive::<BudgetResponse>().await {
            Ok(BudgetResponse { jobs_allowed: true }) => Ok(()),
            Ok(BudgetResponse { jobs_allowed: false }) => {
                let detail = "the budget of this month is used up and set to stop new jobs; raise the budget or turn \
                              off the stop";
                Err(Problem::conflict(detail).of_kind("/problems/budget-used-up", "budget used up"))
            }
            Err(error) => {
                metrics::counter!("job_standing_unknown_total").increment(1);
                tracing::warn!(%organization, %error, "budget check failed; allowing the job (fail open)");
                Ok(())
            }
        }
    }
}
