//! A page of a list by id.

use uuid::Uuid;

/// A page of a list: after which id, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Page {
    /// After which id.
    pub after: Option<Uuid>,
    /// How many at most; none if 0.
    pub limit: usize,
}
