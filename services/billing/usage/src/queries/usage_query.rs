//! Usage queries, their results, and the limits of both.

use epoch::Timestamp;
use rating::calendar::span::Window;
use uuid::Uuid;

use crate::page::Page;

/// The maximum number of file changes, links and runs that one query reads individually.
pub const MAX_CHANGES: i64 = 200_000;
/// The maximum number of anomalies of files, and of jobs, in one report. The report indicates whether there are
/// more.
pub const MAX_ANOMALIES: usize = 10_000;
/// The maximum number of cells of a result: subjects, or files and the jobs that share each, times spans.
/// This many take up to 160 MB and about two seconds.
pub const MAX_CELLS: i64 = 5_000_000;

/// The maximum number of shared files that one query reads.
pub const MAX_SHARED_FILES: usize = 20_000;

/// The organization, the window and the state of knowledge of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageQuery {
    pub organization: Uuid,
    pub window: Window,
    /// Records after this instant are ignored; `None` uses everything known.
    pub known_at: Option<Timestamp>,
}

/// Usage in contiguous spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageBySpan {
    /// Stored byte-milliseconds by span.
    pub byte_ms: Vec<i128>,
    /// Run milliseconds by span.
    pub run_ms: Vec<i128>,
    /// Run milliseconds over all spans by user, for users with run time; runs without a user come first.
    pub users: Vec<(Option<Uuid>, i128)>,
    /// Whether a stored file counts only up to `as_of`.
    pub storage_provisional: bool,
    /// Whether a running job counts only up to `as_of`.
    pub compute_provisional: bool,
}

/// A page of results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsagePage<T> {
    pub items: Vec<T>,
    /// The id to continue after, if there are more items.
    pub next: Option<Uuid>,
}

pub(crate) fn one_more(page: Page) -> Page {
    Page { limit: page.limit.saturating_add(1), ..page }
}
