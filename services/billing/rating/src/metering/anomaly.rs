//! Anomalies of files and jobs: flagged, never clamped.

/// What is odd about a file or a job in an answer; its numbers are as its events say all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flag {
    /// More of the file was freed than had been stored.
    NegativeLevel,
    /// The run ended before it started; it counts 0.
    CompletedBeforeStarted,
    /// The run ended and never started; it counts 0.
    CompletedWithoutStart,
}

impl Flag {
    /// The flag as it is written in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Flag::NegativeLevel => "negative_level",
            Flag::CompletedBeforeStarted => "completed_before_started",
            Flag::CompletedWithoutStart => "completed_without_start",
        }
    }
}

/// A flag and whom it is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flagged<I> {
    /// About which file or job; flags are sorted by it.
    pub id: I,
    /// What is odd.
    pub flag: Flag,
}
