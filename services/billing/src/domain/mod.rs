//! Metering and money, purely: no clock, no database, no floats.
//!
//! Whoever calls gives events that are counted once each, the period, and the instant the answer is as of. The same functions
//! serve the HTTP API and anything else that has events, so ids are of any ordered type.

pub mod account;
pub mod apportion;
pub mod breakdown;
pub mod buckets;
pub mod catalogue;
pub mod charge;
pub mod charging;
pub mod compute;
pub mod currency;
pub mod days;
pub mod decimal;
pub mod exact;
pub mod forecast;
pub mod invoice;
pub mod metering;
pub mod money;
pub mod month;
pub mod pairing;
pub mod plan;
pub mod priced;
pub mod prices;
pub mod quantity;
pub mod rating;
pub mod refused;
pub mod runs;
pub mod sharing;
pub mod slots;
pub mod span;
pub mod steps;
pub mod storage;

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
