//! Versions and positions.
//!
//! The problem: two commands that read the same state must not both append as if they were alone. Every event of an
//! aggregate has a version, 1, 2, 3, … without holes, and an append names the version it has seen.
//!
//! The invariant: only Epoch makes versions. There is no public way to write one into an event.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many events an aggregate has: `0` means that it doesn't exist yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(u64);

impl Version {
    /// The version of an aggregate without events.
    pub const ZERO: Version = Version(0);

    /// The version with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number, as it is stored and shown.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The version of the event that comes after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The version after `events` more events.
    #[must_use]
    pub const fn after(self, events: usize) -> Self {
        Self(self.0 + events as u64)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Where an event stands in its store's total order; positions grow in commit order and may have holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(u64);

impl Position {
    /// Before the first event.
    pub const START: Position = Position(0);

    /// The position with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number, as it is stored and shown.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
