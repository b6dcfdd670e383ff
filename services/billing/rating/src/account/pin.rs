//! Pins: the version of a plan that an account is charged by.

use epoch::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The instant from which the opening plan applies: the first instant of the year 1, before any usage.
pub const BEGINNING: Timestamp = Timestamp::from_millis(-62_135_596_800_000);

/// A version of a plan that an account is pinned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pin {
    pub plan: Uuid,
    pub version: u32,
}
