//! Changes of a file: its level, and the jobs that are linked to it.

use epoch::Timestamp;

/// Something happens to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange<J> {
    /// When.
    pub at: Timestamp,
    /// What.
    pub change: Change<J>,
}

/// What happens to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<J> {
    /// It holds so many bytes more, or fewer.
    Level(i64),
    /// A job uses it from now on.
    Link(J),
    /// A job doesn't use it any more.
    Unlink(J),
}
