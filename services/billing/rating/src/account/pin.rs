//! Pins: the version of a plan that an account is charged by.

use epoch::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// From when on an account has the plan that it is opened by: the first instant of the year 1. Nothing was used before.
pub const BEGINNING: Timestamp = Timestamp::from_millis(-62_135_596_800_000);

/// A version of a plan that an account is pinned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pin {
    /// The plan.
    pub plan: Uuid,
    /// Its version.
    pub version: u32,
}
