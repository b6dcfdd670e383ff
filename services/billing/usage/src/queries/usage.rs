//! Usage of an organization in a period, with its jobs, files and anomalies.

use rating::{
    calendar::span::Span,
    metering::{
        anomaly::{Flag, Flagged},
        compute::{JobUsage, compute_usage},
        storage::FileUsage,
    },
    sharing::{rule::Rules, shares::Shares},
};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    page::Page,
    queries::{
        question::{Asked, MAX_FLAGS, Part, Totals, one_more},
        reading::{Cut, Late, Pages, TOTALS},
        snapshot::Snapshot,
    },
    read_error::ReadError,
    sharing::{shared, users_of},
};

/// What an organization used in a period, and what is odd about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// By span.
    pub totals: Totals,
    /// The jobs that ran.
    pub jobs: Part<JobUsage<Uuid, Uuid>>,
    /// The files that were stored, and how jobs share each.
    pub files: Part<FileUsage<Uuid, Uuid>>,
    /// What is odd about files, up to [`MAX_FLAGS`].
    pub odd_files: Vec<Flagged<Uuid>>,
    /// Whether there are more.
    pub more_odd_files: bool,
    /// What is odd about jobs, up to [`MAX_FLAGS`].
    pub odd_jobs: Vec<Flagged<Uuid>>,
    /// Whether there may be more.
    pub more_odd_jobs: bool,
}

/// Usage in `spans`, which partition what of the period counts, and pages of the jobs and files that have part in it; files are
/// shared by the rules.
///
/// # Errors
/// [`ReadError`].
pub async fn usage(
    pool: &PgPool,
    asked: Asked,
    rules: impl Into<Rules>,
    spans: &[Span],
    jobs: Page,
    files: Page,
) -> Result<Usage, ReadError> {
    let rules = rules.into();
    let pages = Pages { jobs: one_more(jobs), files: one_more(files), flags: MAX_FLAGS + 1 };
    let cut = Cut::of(asked.window, spans);
    let (found, late, users) = match asked.known_at {
        // One statement is one moment, without a transaction around it.
        None => {
            let late = Late::default();
            let mut connection = pool.acquire().await?;
            let found = asked.read(&mut connection, &late, TOTALS, &cut, pages).await?;
            let users = users_of(&mut connection, asked.organization, &rules, &found.links).await?;
            (found, late, users)
        }
        Some(_) => {
            let mut snapshot = Snapshot::of(pool, asked).await?;
            let found = snapshot.read(TOTALS, &cut, pages).await?;
            let users = users_of(&mut snapshot.connection, asked.organization, &rules, &found.links).await?;
            (found, snapshot.late, users)
        }
    };
    let below_nothing = |id: &Uuid| Flagged { id: *id, flag: Flag::NegativeLevel };
    let (odd_files, more_odd_files) = first_flags(found.below_nothing.iter().map(below_nothing).collect(), false);
    let odd_jobs = compute_usage(&late.odd_runs(&found), asked.window, &[]).flags;
    // Not all runs that are read are odd in this period, so that there may be none among those that are left out.
    let (odd_jobs, more_odd_jobs) = first_flags(odd_jobs, found.odd.len() > MAX_FLAGS);
    let totals = asked.totals(&found, &cut, spans);
    let Part { items, next } = asked.runs_of_page(&found.runs, &late, jobs);
    let jobs = Part { items: compute_usage(&items, asked.window, &[]).jobs, next };
    let Part { items, next } = asked.file_sums(&found, &late, files.limit);
    let mut shared = shared(found.links, found.changes, &[asked.window.counted()], &rules, &users);
    let mut files = Vec::with_capacity(items.len());
    for (file, byte_ms) in items {
        let (unattributed_byte_ms, jobs) = match shared.remove(&file).map(Shares::together) {
            // Of what was before the first link, only the sums know all.
            Some((_, jobs)) => (byte_ms - jobs.iter().map(|(_, share)| share).sum::<i128>(), jobs),
            None => (byte_ms, Vec::new()),
        };
        files.push(FileUsage { file, byte_ms, unattributed_byte_ms, jobs });
    }
    let files = Part { items: files, next };
    Ok(Usage { totals, jobs, files, odd_files, more_odd_files, odd_jobs, more_odd_jobs })
}

/// As many flags as an answer has, and whether there are more.
fn first_flags(mut flags: Vec<Flagged<Uuid>>, cut: bool) -> (Vec<Flagged<Uuid>>, bool) {
    let more = cut || flags.len() > MAX_FLAGS;
    flags.truncate(MAX_FLAGS);
    (flags, more)
}
