//! A page of a list that is ordered by id.

use uuid::Uuid;

/// The position and the size of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Page {
    /// The id before the page.
    pub after: Option<Uuid>,
    /// The maximum number of items; 0 requests none.
    pub limit: usize,
}
