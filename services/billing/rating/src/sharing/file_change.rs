//! Changes of a file: its size, and the jobs that are linked to it.

use epoch::Timestamp;

/// A change of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange<J> {
    pub at: Timestamp,
    pub change: Change<J>,
}

/// The kind of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<J> {
    /// The size changes by this many bytes.
    Level(i64),
    /// A job is linked.
    Link(J),
    /// A job is unlinked.
    Unlink(J),
}
