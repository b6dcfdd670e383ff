//! Steps of a comparison: their interval and their outcome.

use std::time::Duration;

/// The time between two steps.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Another process takes one.
    Elsewhere,
    /// The owner gave no answer.
    Unreachable,
    /// So many rows were compared.
    Compared {
        /// How many.
        rows: usize,
        /// How many of them differ.
        differences: usize,
    },
}

impl Look {
    pub(super) const fn result(self) -> &'static str {
        match self {
            Self::Elsewhere => "elsewhere",
            Self::Unreachable => "unreachable",
            Self::Compared { differences: 0, .. } => "equal",
            Self::Compared { .. } => "different",
        }
    }
}
