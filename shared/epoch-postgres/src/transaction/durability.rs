//! When a committed transaction is on disk.

/// When a commit is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// When the server confirms the commit, or as the server is configured.
    AtCommit,
    /// Shortly after the commit, and never later than the next durable commit. Only for deliveries that another source
    /// repeats after a loss.
    Deferred,
}

impl Durability {
    /// Returns the statement that opens the transaction.
    pub(crate) const fn begin_statement(self) -> &'static str {
        match self {
            Self::AtCommit => "begin",
            Self::Deferred => "begin; set local synchronous_commit to off",
        }
    }
}
