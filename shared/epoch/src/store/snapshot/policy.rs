//! When snapshots are written.

use crate::event::version::Version;

/// When to write a snapshot of an aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SnapshotPolicy {
    /// Never; existing snapshots are not read either.
    #[default]
    Never,
    /// After each commit.
    EveryCommit,
    /// When the version passes a multiple of this number of events; `0` means `1`.
    Every(u64),
}

impl SnapshotPolicy {
    /// Returns the distance between snapshots in events, or `None` for [`Never`](Self::Never).
    pub(super) fn interval(self) -> Option<u64> {
        match self {
            Self::Never => None,
            Self::EveryCommit => Some(1),
            Self::Every(events) => Some(events.max(1)),
        }
    }

    /// Returns whether a commit from version `before` to `after` requires a snapshot.
    #[must_use]
    pub fn is_due(self, before: Version, after: Version) -> bool {
        self.interval().is_some_and(|events| before.get() / events < after.get() / events)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However a stream grows, a load never folds more than the policy's number of events plus one commit.
        #[test]
        fn snapshot_distance_is_bounded_by_policy_and_one_commit(
            every in 1..20_u64,
            commits in prop::collection::vec(0..7_u64, 1..60),
        ) {
            let (mut version, mut snapshot) = (0, 0);
            for events in commits {
                let after = version + events;
                if SnapshotPolicy::Every(every).is_due(Version::new(version), Version::new(after)) {
                    snapshot = after;
                }
                prop_assert!(after - snapshot < every, "snapshot at {snapshot}, stream at {after}");
                let each = SnapshotPolicy::EveryCommit.is_due(Version::new(version), Version::new(after));
                prop_assert_eq!(each, events > 0);
                prop_assert!(!SnapshotPolicy::Never.is_due(Version::new(version), Version::new(after)));
                version = after;
            }
        }
    }
}
