//! Questions about usage, and the bounds of their answers.

use epoch::Timestamp;
use rating::calendar::span::Window;
use uuid::Uuid;

use crate::page::Page;

/// The most changes of single files, links and runs that one answer reads.
pub const MAX_CHANGES: i64 = 200_000;
/// The most flags of files, and of jobs, in one answer; those after them are left out, and the answer says so.
pub const MAX_FLAGS: usize = 10_000;
/// The most sums that one answer is put together from: subjects, or files and the jobs that share each, times parts of the period.
/// They take up to 160 MB, and some two seconds.
pub const MAX_PARTS: i64 = 5_000_000;

/// The most files that jobs share which one answer reads.
pub const MAX_SHARED_FILES: usize = 20_000;

/// Whose usage, of when, and as far as it was known when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The organization.
    pub organization: Uuid,
    /// The period, and as of when.
    pub window: Window,
    /// What was recorded later is not known yet; everything is known if it isn't said.
    pub known_at: Option<Timestamp>,
}

/// Usage in spans that follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Stored byte-milliseconds, by span.
    pub byte_ms: Vec<i128>,
    /// Run milliseconds, by span.
    pub run_ms: Vec<i128>,
    /// Run milliseconds of all spans together by user, where there are any; nobody comes first.
    pub users: Vec<(Option<Uuid>, i128)>,
    /// Whether something is still stored that counts only up to `as_of`.
    pub storage_provisional: bool,
    /// Whether something still runs that counts only up to `as_of`.
    pub compute_provisional: bool,
}

/// A part of a list, and after which id it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<T> {
    /// By id.
    pub items: Vec<T>,
    /// After which id there are more.
    pub next: Option<Uuid>,
}

pub(crate) fn one_more(page: Page) -> Page {
    Page { limit: page.limit.saturating_add(1), ..page }
}
