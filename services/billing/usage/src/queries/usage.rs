//! Usage report of an organization in a period, with its jobs, files and anomalies.

use rating::{
    calendar::span::Span,
    metering::{
        anomaly::{Anomaly, AnomalyKind},
        compute::{JobUsage, compute_usage},
        storage::FileUsage,
    },
    sharing::{rule::SharingRules, shares::Shares},
};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    page::Page,
    queries::{
        evaluation::{ListPages, USAGE_BY_SPAN},
        late_records::LateRecords,
        read_spans::ReadSpans,
        snapshot::Snapshot,
        usage_query::{MAX_ANOMALIES, UsageBySpan, UsagePage, UsageQuery, one_more},
    },
    read_error::ReadError,
    sharing::{job_creators, share_files},
};

/// The usage of an organization in a period, with its anomalies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageReport {
    pub totals: UsageBySpan,
    /// Jobs with runs in the period.
    pub jobs: UsagePage<JobUsage<Uuid, Uuid>>,
    /// Files stored in the period, and the shares of jobs in each.
    pub files: UsagePage<FileUsage<Uuid, Uuid>>,
    /// Anomalies of files, up to [`MAX_ANOMALIES`].
    pub file_anomalies: Vec<Anomaly<Uuid>>,
    /// Whether there are more.
    pub more_file_anomalies: bool,
    /// Anomalies of jobs, up to [`MAX_ANOMALIES`].
    pub job_anomalies: Vec<Anomaly<Uuid>>,
    /// Whether there may be more.
    pub more_job_anomalies: bool,
}

/// Reports usage in `spans`, which partition the counted part of the period, with pages of jobs and files.
/// `rules` determine the shares of jobs in files.
///
/// # Errors
/// [`ReadError`].
pub async fn usage(
    pool: &PgPool,
    query: UsageQuery,
    rules: impl Into<SharingRules>,
    spans: &[Span],
    jobs: Page,
    files: Page,
) -> Result<UsageReport, ReadError> {
    let rules = rules.into();
    let pages = ListPages { jobs: one_more(jobs), files: one_more(files), anomalies: MAX_ANOMALIES + 1 };
    let read_spans = ReadSpans::of(query.window, spans);
    let (rows, late, users) = match query.known_at {
        // One statement reads one state, so it needs no transaction.
        None => {
            let late = LateRecords::default();
            let mut connection = pool.acquire().await?;
            let rows = query.read(&mut connection, &late, USAGE_BY_SPAN, &read_spans, pages).await?;
            let users = job_creators(&mut connection, query.organization, &rules, &rows.links).await?;
            (rows, late, users)
        }
        Some(_) => {
            let mut snapshot = Snapshot::of(pool, query).await?;
            let rows = snapshot.read(USAGE_BY_SPAN, &read_spans, pages).await?;
            let users = job_creators(&mut snapshot.connection, query.organization, &rules, &rows.links).await?;
            (rows, snapshot.late, users)
        }
    };
    let negative = |id: &Uuid| Anomaly { id: *id, kind: AnomalyKind::NegativeLevel };
    let (file_anomalies, more_file_anomalies) =
        first_anomalies(rows.negative_files.iter().map(negative).collect(), false);
    let job_anomalies = compute_usage(&late.anomalous_runs(&rows), query.window, &[]).anomalies;
    // A run that was read may be no anomaly in this period, so there may be none among the rest.
    let (job_anomalies, more_job_anomalies) = first_anomalies(job_anomalies, rows.anomalous_runs.len() > MAX_ANOMALIES);
    let totals = query.usage_by_span(&rows, &read_spans, spans);
    let UsagePage { items, next } = query.runs_of_page(&rows.runs, &late, jobs);
    let jobs = UsagePage { items: compute_usage(&items, query.window, &[]).jobs, next };
    let UsagePage { items, next } = query.file_areas(&rows, &late, files.limit);
    let mut shares = share_files(rows.links, rows.changes, &[query.window.counted()], &rules, &users);
    let mut files = Vec::with_capacity(items.len());
    for (file, byte_ms) in items {
        let (unattributed_byte_ms, jobs) = match shares.remove(&file).map(Shares::total) {
            // Changes before the first link are merged, so only the area from the sums is complete.
            Some((_, jobs)) => (byte_ms - jobs.iter().map(|(_, share)| share).sum::<i128>(), jobs),
            None => (byte_ms, Vec::new()),
        };
        files.push(FileUsage { file, byte_ms, unattributed_byte_ms, jobs });
    }
    let files = UsagePage { items: files, next };
    Ok(UsageReport { totals, jobs, files, file_anomalies, more_file_anomalies, job_anomalies, more_job_anomalies })
}

/// Truncates anomalies to the limit, and returns whether there are more.
fn first_anomalies(mut anomalies: Vec<Anomaly<Uuid>>, truncated: bool) -> (Vec<Anomaly<Uuid>>, bool) {
    let more = truncated || anomalies.len() > MAX_ANOMALIES;
    anomalies.truncate(MAX_ANOMALIES);
    (anomalies, more)
}
