//! Steps of a comparison: their interval and their outcome.

use std::time::Duration;

pub const INTERVAL: Duration = Duration::from_secs(1);
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepOutcome {
    /// Another process is taking a step.
    Elsewhere,
    /// The owner failed to answer.
    Unreachable,
    /// Rows were compared.
    Compared {
        rows: usize,
        /// The number of rows that differ.
        differences: usize,
    },
}

impl StepOutcome {
    pub(super) const fn result(self) -> &'static str {
        match self {
            Self::Elsewhere => "elsewhere",
            Self::Unreachable => "unreachable",
            Self::Compared { differences: 0, .. } => "equal",
            Self::Compared { .. } => "different",
        }
    }
}
