//! Job status in tables and in responses.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Status of a job. `succeeded`, `failed`, `timed_out`, `cancelled` and `lost` are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JobStatus {
    /// Not queued yet; the input files can still change.
    Created,
    /// Waiting for a machine.
    Queued,
    /// Claimed by a machine, which downloads the input files.
    Assigned,
    /// The program runs; run time accrues.
    Running,
    /// The program exited with code 0.
    Succeeded,
    /// The program failed or could not be started.
    Failed,
    /// The program exceeded its time limit.
    TimedOut,
    /// Cancelled by a user or an API key.
    Cancelled,
    /// The machine stopped sending heartbeats.
    Lost,
}

impl JobStatus {
    const ALL: [Self; 9] = [
        Self::Created,
        Self::Queued,
        Self::Assigned,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::Cancelled,
        Self::Lost,
    ];

    /// Returns the name in tables and in responses.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Queued => "queued",
            Self::Assigned => "assigned",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("unknown job status {0}")]
pub(crate) struct UnknownStatus(String);

impl TryFrom<String> for JobStatus {
    type Error = UnknownStatus;

    fn try_from(text: String) -> Result<Self, UnknownStatus> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(UnknownStatus(text))
    }
}

#[cfg(test)]
mod tests {
    use super::JobStatus;

    #[test]
    fn job_status_name_equals_its_json_form() {
        for status in JobStatus::ALL {
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
            assert_eq!(JobStatus::try_from(status.as_str().to_owned()).unwrap(), status);
        }
        assert!(JobStatus::try_from("done".to_owned()).is_err());
    }
}
