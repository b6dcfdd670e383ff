//! The usage of a term, by meter.

use crate::pricing::meter::Meter;

/// What was metered in a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metered {
    /// Byte-milliseconds stored.
    pub byte_ms: i128,
    /// Milliseconds run.
    pub run_ms: i128,
}

impl Metered {
    /// How much of a meter.
    #[must_use]
    pub fn of(self, meter: Meter) -> i128 {
        match meter {
            Meter::Compute => self.run_ms,
            Meter::Storage => self.byte_ms,
        }
    }

    /// The sum of both.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self { byte_ms: self.byte_ms + other.byte_ms, run_ms: self.run_ms + other.run_ms }
    }
}
