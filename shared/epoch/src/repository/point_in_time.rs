//! Points in time for reading earlier states.

use crate::{event::version::Version, time::timestamp::Timestamp};

/// A point in an aggregate's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PointInTime {
    /// After the event with this version.
    Version(Version),
    /// After all events that the store recorded up to this instant.
    Recorded(Timestamp),
}
