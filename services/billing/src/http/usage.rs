//! The usage report: storage and run time of an organization in a period.

use axum::{Json, extract::State};
use http_kit::{ApiQuery, Problem};
use rating::{
    calendar::day::Day,
    metering::{anomaly::Anomaly, compute::JobUsage, storage::FileUsage},
    pricing::meter::{Quantity, Unit},
};
use serde::Serialize;
use usage::{page::Page, queries::usage as usage_query};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::{
    access::ViewedOrganization,
    parameters::OrganizationPath,
    problems::ReadProblems,
    report_period::{ReportPeriodQuery, ReportPeriodResponse},
    state::Api,
};

/// The largest number of files, jobs and users in a report. Usage rows list all of them, page by page.
pub(super) const MAX_LISTED: usize = 200;

/// Usage of an organization in a period.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UsageResponse {
    organization: Uuid,
    #[serde(flatten)]
    period: ReportPeriodResponse,
    storage: StorageUsageResponse,
    compute: ComputeUsageResponse,
}

/// Storage in a period.
#[derive(Debug, Serialize, ToSchema)]
struct StorageUsageResponse {
    /// Stored bytes times milliseconds, exact.
    #[schema(example = "172620005663088380")]
    byte_ms: String,
    /// The same in GB-hours (10⁹ bytes for one hour), truncated to 12 decimal places.
    #[schema(example = "47.95000157308")]
    gb_hours: String,
    /// Whether files are still stored, so that the usage grows after `as_of`.
    provisional: bool,
    /// Anomalies of files, at most 10,000.
    flags: Vec<UsageAnomalyResponse>,
    /// Whether there are more anomalies than listed.
    more_flags: bool,
    /// The days of the period. The first and the last are clipped to it.
    days: Vec<StorageDayResponse>,
    /// The first 200 files with usage in the period, by id.
    files: Vec<FileUsageResponse>,
    /// Whether there are more files. Usage rows grouped by `file` list all of them.
    more_files: bool,
}

/// Run time in a period.
#[derive(Debug, Serialize, ToSchema)]
struct ComputeUsageResponse {
    /// Run time in milliseconds, exact.
    #[schema(example = "7207250")]
    run_ms: String,
    /// Whether jobs are still running, so that the usage grows after `as_of`.
    provisional: bool,
    /// Anomalies of jobs, at most 10,000.
    flags: Vec<UsageAnomalyResponse>,
    /// Whether there may be more anomalies than listed.
    more_flags: bool,
    /// The days of the period. The first and the last are clipped to it.
    days: Vec<ComputeDayResponse>,
    /// The first 200 jobs with usage in the period, by id.
    jobs: Vec<JobUsageResponse>,
    /// Whether there are more jobs. Usage rows grouped by `job` list all of them.
    more_jobs: bool,
    /// The first 200 users whose jobs ran in the period, by id. Jobs without a user come first.
    users: Vec<UserUsageResponse>,
    /// Whether there are more users. Usage rows grouped by `user` list all of them.
    more_users: bool,
}

/// An anomaly in the events of a file or job. Its usage is computed from the events as they are.
#[derive(Debug, Serialize, ToSchema)]
struct UsageAnomalyResponse {
    /// `negative_level`, `completed_before_started` or `completed_without_start`.
    #[schema(example = "completed_without_start")]
    flag: &'static str,
    /// The id of the file or job.
    id: Uuid,
}

impl From<Anomaly<Uuid>> for UsageAnomalyResponse {
    fn from(anomaly: Anomaly<Uuid>) -> Self {
        Self { flag: anomaly.kind.as_str(), id: anomaly.id }
    }
}

/// Storage on one day.
#[derive(Debug, Serialize, ToSchema)]
struct StorageDayResponse {
    #[schema(example = "2025-10-26")]
    date: String,
    #[schema(value_type = String, format = DateTime)]
    start: String,
    #[schema(value_type = String, format = DateTime)]
    end: String,
    /// Stored bytes times milliseconds, exact.
    byte_ms: String,
}

/// Run time on one day.
#[derive(Debug, Serialize, ToSchema)]
struct ComputeDayResponse {
    #[schema(example = "2025-10-26")]
    date: String,
    #[schema(value_type = String, format = DateTime)]
    start: String,
    #[schema(value_type = String, format = DateTime)]
    end: String,
    /// Run time in milliseconds, exact.
    run_ms: String,
}

/// Storage of one file. The shares of its jobs and the unattributed storage sum to the file's.
#[derive(Debug, Serialize, ToSchema)]
struct FileUsageResponse {
    file: Uuid,
    /// Stored bytes times milliseconds, exact.
    byte_ms: String,
    /// The storage that is attributed to no job.
    unattributed_byte_ms: String,
    /// The shares of the linked jobs, by id. The plan that applies at each instant defines the sharing rule.
    jobs: Vec<FileShareResponse>,
}

impl From<FileUsage<Uuid, Uuid>> for FileUsageResponse {
    fn from(usage: FileUsage<Uuid, Uuid>) -> Self {
        let share = |(job, byte_ms): (Uuid, i128)| FileShareResponse { job, byte_ms: byte_ms.to_string() };
        Self {
            file: usage.file,
            byte_ms: usage.byte_ms.to_string(),
            unattributed_byte_ms: usage.unattributed_byte_ms.to_string(),
            jobs: usage.jobs.into_iter().map(share).collect(),
        }
    }
}

/// A job's share of a file.
#[derive(Debug, Serialize, ToSchema)]
struct FileShareResponse {
    job: Uuid,
    byte_ms: String,
}

/// Run time of one job.
#[derive(Debug, Serialize, ToSchema)]
struct JobUsageResponse {
    job: Uuid,
    /// The user who ran the job. Null when there is none.
    user: Option<Uuid>,
    run_ms: String,
}

impl From<JobUsage<Uuid, Uuid>> for JobUsageResponse {
    fn from(usage: JobUsage<Uuid, Uuid>) -> Self {
        Self { job: usage.job, user: usage.user, run_ms: usage.run_ms.to_string() }
    }
}

/// Run time of the jobs of one user.
#[derive(Debug, Serialize, ToSchema)]
struct UserUsageResponse {
    /// Null for jobs without a user.
    user: Option<Uuid>,
    run_ms: String,
}

/// Get usage in a period
///
/// Returns storage by day and file, and run time by day, job and user. Default: the current UTC month up to now. Events
/// of other services arrive with a short delay.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/usage", tag = "billing", params(OrganizationPath, ReportPeriodQuery),
    responses(
        (status = 200, description = "The usage in the period.", body = UsageResponse),
        (status = 422, description = "The period is empty or longer than 400 days, the time zone is unknown, or the report \
            exceeds a limit.", body = Problem, content_type = "application/problem+json"),
        ReadProblems,
    )
)]
pub(super) async fn get_usage(
    State(api): State<Api>,
    ViewedOrganization(organization): ViewedOrganization,
    ApiQuery(query): ApiQuery<ReportPeriodQuery>,
) -> Result<Json<UsageResponse>, Problem> {
    let report = query.resolve(api.ledger.now())?;
    let rules = api.ledger.rules(organization, report.window.period).await?;
    let counted = report.window.counted();
    let spans: Vec<_> = report.days.iter().map(|day| day.span.intersect(counted)).collect();
    let first_page = Page { after: None, limit: MAX_LISTED };
    let query = report.usage_query(organization);
    let usage = usage_query::usage(&api.pool, query, rules, &spans, first_page, first_page).await?;
    let usage_query::UsageReport {
        totals,
        jobs,
        files,
        file_anomalies,
        more_file_anomalies,
        job_anomalies,
        more_job_anomalies,
    } = usage;
    let byte_ms: i128 = totals.byte_ms.iter().sum();
    let run_ms: i128 = totals.run_ms.iter().sum();
    let storage = StorageUsageResponse {
        byte_ms: byte_ms.to_string(),
        gb_hours: Quantity { metered: byte_ms, unit: Unit::GbHour }.to_string(),
        provisional: totals.storage_provisional,
        flags: file_anomalies.into_iter().map(UsageAnomalyResponse::from).collect(),
        more_flags: more_file_anomalies,
        days: storage_days(&report.days, &totals.byte_ms),
        files: files.items.into_iter().map(FileUsageResponse::from).collect(),
        more_files: files.next.is_some(),
    };
    let users = totals.users.iter().take(MAX_LISTED);
    let compute = ComputeUsageResponse {
        run_ms: run_ms.to_string(),
        provisional: totals.compute_provisional,
        flags: job_anomalies.into_iter().map(UsageAnomalyResponse::from).collect(),
        more_flags: more_job_anomalies,
        days: compute_days(&report.days, &totals.run_ms),
        jobs: jobs.items.into_iter().map(JobUsageResponse::from).collect(),
        more_jobs: jobs.next.is_some(),
        users: users.map(|(user, run_ms)| UserUsageResponse { user: *user, run_ms: run_ms.to_string() }).collect(),
        more_users: totals.users.len() > MAX_LISTED,
    };
    Ok(Json(UsageResponse { organization, period: (&report).into(), storage, compute }))
}

fn storage_days(days: &[Day], byte_ms: &[i128]) -> Vec<StorageDayResponse> {
    let response = |(day, byte_ms): (&Day, &i128)| StorageDayResponse {
        date: day.date.to_string(),
        start: day.span.start().to_string(),
        end: day.span.end().to_string(),
        byte_ms: byte_ms.to_string(),
    };
    days.iter().zip(byte_ms).map(response).collect()
}

fn compute_days(days: &[Day], run_ms: &[i128]) -> Vec<ComputeDayResponse> {
    let response = |(day, run_ms): (&Day, &i128)| ComputeDayResponse {
        date: day.date.to_string(),
        start: day.span.start().to_string(),
        end: day.span.end().to_string(),
        run_ms: run_ms.to_string(),
    };
    days.iter().zip(run_ms).map(response).collect()
}
