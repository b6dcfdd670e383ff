//! Where a job is in its life, as tables and answers name it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JobStatus {
    /// Its files can still change.
    Created,
    /// It waits for a machine.
    Queued,
    /// A machine makes ready for it.
    Assigned,
    /// Its program runs.
    Running,
    /// Its program ended well.
    Succeeded,
    /// Its program ended badly, or couldn't be run.
    Failed,
    /// Its program was ended because it took too long.
    TimedOut,
    /// Somebody ended it.
    Cancelled,
    /// Its machine went away.
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

    /// As it is written in tables and answers.
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

/// A table holds a status that this program doesn't know.
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
    fn is_written_in_one_way_everywhere() {
        for status in JobStatus::ALL {
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
            assert_eq!(JobStatus::try_from(status.as_str().to_owned()).unwrap(), status);
        }
        assert!(JobStatus::try_from("done".to_owned()).is_err());
    }
}
