//! Whether an organization's budget lets it queue jobs.
//!
//! The problem: a customer who asks for a hard stop doesn't want to pay for more; and a billing service that is away must not keep
//! everybody's jobs from running.
//!
//! The invariant: a job is refused only when billing says so. No answer in time, or one that can't be read, lets the job go on and
//! is counted (`job_standing_unknown_total`): rather a job too many than all jobs too few.

use std::time::Duration;

use serde::Deserialize;
use service_kit::{Problem, http_client::Peer};
use uuid::Uuid;

/// How long billing may take.
const LIMIT: Duration = Duration::from_millis(500);

/// Asks billing.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    billing: Peer,
}

#[derive(Deserialize)]
struct Answer {
    jobs_allowed: bool,
}

impl Standing {
    pub(crate) fn new(billing: Peer) -> Self {
        Self { billing }
    }

    /// Checks that `organization` may queue a job.
    ///
    /// # Errors
    /// 409 when its budget is used up and it asked for a hard stop.
    pub(crate) async fn require(&self, organization: Uuid) -> Result<(), Problem> {
        let path = format!("/internal/v1/billing/organizations/{organization}/standing");
        match self.billing.get(&path).within(LIMIT).receive::<Answer>().await {
            Ok(Answer { jobs_allowed: true }) => Ok(()),
            Ok(Answer { jobs_allowed: false }) => {
                let detail = "the month's budget is used up, and it stops new jobs; raise it or lift the stop";
                Err(Problem::conflict(detail).of_kind("/problems/budget-used-up", "the budget is used up"))
            }
            Err(error) => {
                metrics::counter!("job_standing_unknown_total").increment(1);
                tracing::warn!(%organization, %error, "billing doesn't say whether jobs may go on; they do");
                Ok(())
            }
        }
    }
}
