//! Reading your own writes.
//!
//! The problem: a read model follows its events, so a client that just changed something may read it as it was.
//!
//! The invariant: a read that asks for a version is answered at that version or newer, or not at all (503 and when to ask
//! again); never silently stale.

use epoch::Version;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::problem::Problem;

/// `?min_version=<version>`: the version, from a command's `ETag`, that the answer must contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct MinVersion {
    /// The version the answer must contain; `503` with `Retry-After` while the read model hasn't come that far.
    #[serde(default)]
    pub min_version: Option<u64>,
}

impl MinVersion {
    /// The version asked for.
    #[must_use]
    pub fn version(self) -> Option<Version> {
        self.min_version.map(Version::new)
    }
}

/// 503: the read model is at `reached` and didn't come to `wanted` in time.
#[must_use]
pub fn not_reached(wanted: Version, reached: Version) -> Problem {
    Problem::unavailable(format!("the read model is at version {reached}, version {wanted} was asked for"))
        .of_kind("/problems/version-not-reached", "version not reached yet")
}

#[cfg(test)]
mod tests {
    use epoch::Version;

    use super::{MinVersion, not_reached};

    #[test]
    fn none_is_asked_for_by_default() {
        assert_eq!(MinVersion::default().version(), None);
        assert_eq!(MinVersion { min_version: Some(3) }.version(), Some(Version::new(3)));
    }

    #[test]
    fn says_how_far_it_is() {
        let problem = not_reached(Version::new(7), Version::new(5));
        assert_eq!(problem.status(), 503);
        assert!(problem.detail().contains('7') && problem.detail().contains('5'));
    }
}
