//! Anomalies of files and jobs. They are reported, and values are never clamped.

/// The kind of an anomaly. Amounts are computed from the events as they are, in spite of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnomalyKind {
    /// More bytes of the file were freed than stored.
    NegativeLevel,
    /// The run ended before it started and counts 0.
    CompletedBeforeStarted,
    /// The run ended without a start and counts 0.
    CompletedWithoutStart,
}

impl AnomalyKind {
    /// Returns the name in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            AnomalyKind::NegativeLevel => "negative_level",
            AnomalyKind::CompletedBeforeStarted => "completed_before_started",
            AnomalyKind::CompletedWithoutStart => "completed_without_start",
        }
    }
}

/// An anomaly of a file or a job. Anomalies sort by id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Anomaly<I> {
    /// The file or the job.
    pub id: I,
    pub kind: AnomalyKind,
}
