//! What an organization stored and ran.

use axum::{Json, extract::State};
use http_kit::{ApiQuery, Problem};
use rating::{
    calendar::day::Day,
    metering::{anomaly::Anomaly, compute::JobUsage as JobUsed, storage::FileUsage as FileUsed},
    pricing::meter::{Quantity, Unit},
    sharing::rule::SharingRules,
};
use serde::Serialize;
use sqlx::PgPool;
use usage::{
    page::Page,
    queries::{
        usage as usage_query,
        usage_query::{UsageBySpan, UsagePage},
    },
};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::{
    access::Viewed,
    question::{Question, QuestionQuery},
    state::Api,
};

/// What an organization stored and ran in a period.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageAnswer {
    organization: Uuid,
    #[schema(value_type = String, format = DateTime)]
    from: String,
    #[schema(value_type = String, format = DateTime)]
    to: String,
    /// What happened later doesn't count; what still runs or is still stored counts up to here.
    #[schema(value_type = String, format = DateTime)]
    as_of: String,
    /// What was recorded later is left out; null when nothing is.
    #[schema(value_type = Option<String>, format = DateTime)]
    known_at: Option<String>,
    /// The IANA time zone whose days are listed.
    time_zone: String,
    storage: StorageAnswer,
    compute: ComputeAnswer,
}

/// What was stored.
#[derive(Debug, Serialize, ToSchema)]
struct StorageAnswer {
    /// Bytes times milliseconds, exact.
    #[schema(example = "172620005663088380")]
    byte_ms: String,
    /// The same in units of 10⁹ bytes and one hour, cut after 12 digits.
    #[schema(example = "47.95000157308")]
    gb_hours: String,
    /// Whether something is still stored that counts only up to `as_of`.
    provisional: bool,
    /// What is odd, by file; at most 10,000.
    flags: Vec<FlagAnswer>,
    /// Whether more is odd than is listed.
    more_flags: bool,
    /// The days of the period, the first and the last clipped to it.
    days: Vec<StorageDay>,
    /// The first 200 files that were stored in the period, by id.
    files: Vec<FileUsage>,
    /// Whether there are more files; rows grouped by file tell all of them.
    more_files: bool,
}

/// What was run.
#[derive(Debug, Serialize, ToSchema)]
struct ComputeAnswer {
    /// Milliseconds, exact.
    #[schema(example = "7207250")]
    run_ms: String,
    /// Whether something still runs that counts only up to `as_of`.
    provisional: bool,
    /// What is odd, by job; at most 10,000.
    flags: Vec<FlagAnswer>,
    /// Whether more may be odd than is listed.
    more_flags: bool,
    /// The days of the period, the first and the last clipped to it.
    days: Vec<ComputeDay>,
    /// The first 200 jobs that ran in the period, by id.
    jobs: Vec<JobUsage>,
    /// Whether there are more jobs; rows grouped by job tell all of them.
    more_jobs: bool,
    /// The first 200 users whose jobs ran in the period, by id; nobody comes first.
    users: Vec<UserUsage>,
    /// Whether there are more users; rows grouped by user tell all of them.
    more_users: bool,
}

/// Something odd; the numbers are as the events say all the same.
#[derive(Debug, Serialize, ToSchema)]
struct FlagAnswer {
    /// `negative_level`, `completed_before_started` or `completed_without_start`.
    flag: &'static str,
    /// The file or job.
    id: Uuid,
}

#[derive(Debug, Serialize, ToSchema)]
struct StorageDay {
    #[schema(example = "2025-10-26")]
    date: String,
    #[schema(value_type = String, format = DateTime)]
    start: String,
    #[schema(value_type = String, format = DateTime)]
    end: String,
    byte_ms: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct ComputeDay {
    #[schema(example = "2025-10-26")]
    date: String,
    #[schema(value_type = String, format = DateTime)]
    start: String,
    #[schema(value_type = String, format = DateTime)]
    end: String,
    run_ms: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct FileUsage {
    file: Uuid,
    byte_ms: String,
    /// What of it no job uses; it and the jobs' shares sum to the file.
    unattributed_byte_ms: String,
    /// The jobs that use it, by id, and their shares, by the rule of the plan that applied at each instant.
    jobs: Vec<FileShare>,
}

#[derive(Debug, Serialize, ToSchema)]
struct FileShare {
    job: Uuid,
    byte_ms: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct JobUsage {
    job: Uuid,
    user: Option<Uuid>,
    run_ms: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct UserUsage {
    user: Option<Uuid>,
    run_ms: String,
}

/// Usage in a period
///
/// Storage in byte-milliseconds by day and file, run time in milliseconds by day, job and user. Without parameters: the current
/// UTC month, up to now. Events of other services take a moment to arrive.
#[utoipa::path(
    get,
    path = "/api/v1/organizations/{org}/usage",
    tag = "billing",
    params(("org" = Uuid, Path, description = "The organization"), QuestionQuery),
    responses(
        (status = 200, body = UsageAnswer),
        (status = 400, description = "A parameter is unknown or isn't an instant", body = Problem),
        (status = 404, description = "There is no such organization for the caller", body = Problem),
        (status = 422, description = "The period is empty or longer than 400 days, the time zone is unknown, or the answer \
            would take too much", body = Problem),
    )
)]
pub async fn usage(
    State(api): State<Api>,
    Viewed(organization): Viewed,
    ApiQuery(query): ApiQuery<QuestionQuery>,
) -> Result<Json<UsageAnswer>, Problem> {
    let question = query.question(api.ledger.now())?;
    let rules = api.ledger.rules(organization, question.window.period).await?;
    let usage = Usage::read(&api.pool, organization, &question, rules).await?;
    let period = question.window.period;
    let (storage, compute) = usage.answer(&question.days);
    Ok(Json(UsageAnswer {
        organization,
        from: period.start().to_string(),
        to: period.end().to_string(),
        as_of: question.window.as_of.to_string(),
        known_at: question.known_at.map(|known_at| known_at.to_string()),
        time_zone: question.time_zone,
        storage,
        compute,
    }))
}

/// Bounds the lists of files, jobs and users in an answer; rows tell all of them, page by page.
pub(super) const LISTED: usize = 200;

/// An organization's usage of both kinds.
struct Usage {
    totals: UsageBySpan,
    jobs: UsagePage<JobUsed<Uuid, Uuid>>,
    files: UsagePage<FileUsed<Uuid, Uuid>>,
    file_anomalies: Vec<Anomaly<Uuid>>,
    more_file_anomalies: bool,
    job_anomalies: Vec<Anomaly<Uuid>>,
    more_job_anomalies: bool,
}

impl Usage {
    async fn read(
        pool: &PgPool,
        organization: Uuid,
        question: &Question,
        rules: SharingRules,
    ) -> Result<Self, Problem> {
        let counted = question.window.counted();
        let spans: Vec<_> = question.days.iter().map(|day| day.span.intersect(counted)).collect();
        let first = Page { after: None, limit: LISTED };
        let usage = usage_query::usage(pool, question.of(organization), rules, &spans, first, first).await?;
        let usage_query::UsageReport {
            totals,
            jobs,
            files,
            file_anomalies,
            more_file_anomalies,
            job_anomalies,
            more_job_anomalies,
        } = usage;
        Ok(Self { totals, jobs, files, file_anomalies, more_file_anomalies, job_anomalies, more_job_anomalies })
    }

    fn byte_ms(&self) -> i128 {
        self.totals.byte_ms.iter().sum()
    }

    fn run_ms(&self) -> i128 {
        self.totals.run_ms.iter().sum()
    }

    fn answer(self, days: &[Day]) -> (StorageAnswer, ComputeAnswer) {
        let (byte_ms, run_ms) = (self.byte_ms(), self.run_ms());
        let (mut storage_days, mut compute_days) = (Vec::new(), Vec::new());
        let by_day = days.iter().zip(self.totals.byte_ms.iter().zip(&self.totals.run_ms));
        for (Day { date, span }, (byte_ms, run_ms)) in by_day {
            let (start, end, date) = (span.start().to_string(), span.end().to_string(), date.to_string());
            let (byte_ms, run_ms) = (byte_ms.to_string(), run_ms.to_string());
            storage_days.push(StorageDay { date: date.clone(), start: start.clone(), end: end.clone(), byte_ms });
            compute_days.push(ComputeDay { date, start, end, run_ms });
        }
        let mut users = Vec::new();
        for (user, run_ms) in self.totals.users.iter().take(LISTED) {
            users.push(UserUsage { user: *user, run_ms: run_ms.to_string() });
        }
        let storage = StorageAnswer {
            byte_ms: byte_ms.to_string(),
            gb_hours: Quantity { metered: byte_ms, unit: Unit::GbHour }.to_string(),
            provisional: self.totals.storage_provisional,
            flags: flags(self.file_anomalies),
            more_flags: self.more_file_anomalies,
            days: storage_days,
            files: self.files.items.into_iter().map(FileUsage::from).collect(),
            more_files: self.files.next.is_some(),
        };
        let compute = ComputeAnswer {
            run_ms: run_ms.to_string(),
            provisional: self.totals.compute_provisional,
            flags: flags(self.job_anomalies),
            more_flags: self.more_job_anomalies,
            days: compute_days,
            jobs: self.jobs.items.into_iter().map(JobUsage::from).collect(),
            more_jobs: self.jobs.next.is_some(),
            users,
            more_users: self.totals.users.len() > LISTED,
        };
        (storage, compute)
    }
}

impl From<FileUsed<Uuid, Uuid>> for FileUsage {
    fn from(used: FileUsed<Uuid, Uuid>) -> Self {
        let share = |(job, byte_ms): (Uuid, i128)| FileShare { job, byte_ms: byte_ms.to_string() };
        Self {
            file: used.file,
            byte_ms: used.byte_ms.to_string(),
            unattributed_byte_ms: used.unattributed_byte_ms.to_string(),
            jobs: used.jobs.into_iter().map(share).collect(),
        }
    }
}

impl From<JobUsed<Uuid, Uuid>> for JobUsage {
    fn from(used: JobUsed<Uuid, Uuid>) -> Self {
        Self { job: used.job, user: used.user, run_ms: used.run_ms.to_string() }
    }
}

fn flags(flags: Vec<Anomaly<Uuid>>) -> Vec<FlagAnswer> {
    flags.into_iter().map(|flagged| FlagAnswer { flag: flagged.kind.as_str(), id: flagged.id }).collect()
}
