//! The `min_version` query parameter, for reading your own writes.
//!
//! Read models lag behind events. A read with `min_version` returns state at that version or newer, or 503 with
//! `Retry-After`; it never returns older state.

use std::time::Duration;

use epoch::{Version, envelope::StreamKey};
use epoch_postgres::{Progress, WaitError};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::problem::Problem;

/// `?min_version=<version>`, where the version comes from the `ETag` of a command's response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct MinVersion {
    /// The minimum version of the returned state, e.g. `7` (default: any). Responds 503 with `Retry-After` while the read
    /// model is at an older version.
    #[serde(default)]
    pub min_version: Option<u64>,
}

/// How long a read waits for its `min_version`.
pub const WAIT_LIMIT: Duration = Duration::from_secs(2);

impl MinVersion {
    #[must_use]
    pub fn version(self) -> Option<Version> {
        self.min_version.map(Version::new)
    }

    /// Waits until `subscription` has applied this version of `stream`, for at most [`WAIT_LIMIT`]. Returns at once without a
    /// `min_version`.
    ///
    /// # Errors
    /// 503 when the subscription has not reached the version, or when the store is unavailable.
    pub async fn wait(self, progress: &Progress, subscription: &str, stream: &StreamKey) -> Result<(), Problem> {
        let Some(version) = self.version() else { return Ok(()) };
        Ok(progress.wait_for(subscription, stream, version, WAIT_LIMIT).await?)
    }
}

/// Returns a 503 for a read model that is at `reached` and did not reach `required` in time.
#[must_use]
pub fn not_reached(required: Version, reached: Version) -> Problem {
    Problem::unavailable(format!("the read model is at version {reached}, the request requires version {required}"))
        .of_kind("/problems/version-not-reached", "version not reached yet")
}

impl From<WaitError> for Problem {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::NotReached { wanted, reached, .. } => not_reached(wanted, reached),
            WaitError::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use epoch::Version;

    use super::{MinVersion, not_reached};

    #[test]
    fn min_version_is_none_by_default() {
        assert_eq!(MinVersion::default().version(), None);
        assert_eq!(MinVersion { min_version: Some(3) }.version(), Some(Version::new(3)));
    }

    #[test]
    fn not_reached_reports_both_versions() {
        let problem = not_reached(Version::new(7), Version::new(5));
        assert_eq!(problem.status(), 503);
        assert!(problem.detail().contains('7') && problem.detail().contains('5'));
    }
}
