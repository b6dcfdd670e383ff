//! What an organization stored and ran.

use axum::{Json, extract::State};
use epoch::Timestamp;
use serde::Serialize;
use service_kit::{ApiPath, ApiQuery, Caller, Problem, Role};
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Api,
    question::{Question, QuestionQuery},
};
use crate::{
    domain::{
        Flagged,
        compute::{ComputeUsage, compute_usage},
        days::Day,
        quantity::{Quantity, Unit},
        span::Span,
        storage::{StorageUsage, storage_usage},
    },
    projections::{runs, storage_changes},
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
    flags: Vec<FlagAnswer>,
    /// The days of the period, the first and the last clipped to it.
    days: Vec<StorageDay>,
    /// The files that were stored in the period, by id.
    files: Vec<FileUsage>,
}

/// What was run.
#[derive(Debug, Serialize, ToSchema)]
struct ComputeAnswer {
    /// Milliseconds, exact.
    #[schema(example = "7207250")]
    run_ms: String,
    /// Whether something still runs that counts only up to `as_of`.
    provisional: bool,
    flags: Vec<FlagAnswer>,
    /// The days of the period, the first and the last clipped to it.
    days: Vec<ComputeDay>,
    /// The jobs that ran in the period, by id.
    jobs: Vec<JobUsage>,
    /// The users of these jobs, by id; nobody comes first.
    users: Vec<UserUsage>,
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
        (status = 422, description = "The period is empty or longer than 400 days, or the time zone is unknown",
            body = Problem),
    )
)]
pub async fn usage(
    State(api): State<Api>,
    ApiPath(organization): ApiPath<Uuid>,
    caller: Caller,
    ApiQuery(query): ApiQuery<QuestionQuery>,
) -> Result<Json<UsageAnswer>, Problem> {
    caller.in_organization(organization)?;
    caller.at_least(Role::Viewer)?;
    let question = query.question(Timestamp::now())?;
    let usage = Usage::read(&api.pool, organization, &question).await?;
    let period = question.window.period;
    Ok(Json(UsageAnswer {
        organization,
        from: period.start().to_string(),
        to: period.end().to_string(),
        as_of: question.window.as_of.to_string(),
        time_zone: question.time_zone,
        storage: usage.storage.into(),
        compute: usage.compute.into(),
    }))
}

/// An organization's usage of both kinds.
pub(super) struct Usage {
    pub(super) storage: StorageUsage<Uuid>,
    pub(super) compute: ComputeUsage<Uuid, Uuid>,
}

impl Usage {
    pub(super) async fn read(pool: &PgPool, organization: Uuid, question: &Question) -> Result<Self, Problem> {
        let window = question.window;
        let changes = storage_changes::changes(pool, organization, window).await?;
        let runs = runs::runs(pool, organization, window).await?;
        Ok(Self {
            storage: storage_usage(&changes, window, &question.days),
            compute: compute_usage(&runs, window, &question.days),
        })
    }

    pub(super) fn provisional(&self) -> bool {
        self.storage.provisional || self.compute.provisional
    }
}

impl From<StorageUsage<Uuid>> for StorageAnswer {
    fn from(usage: StorageUsage<Uuid>) -> Self {
        let day = |(Day { date, span }, byte_ms): (Day, i128)| {
            let (start, end) = ends(span);
            StorageDay { date: date.to_string(), start, end, byte_ms: byte_ms.to_string() }
        };
        let file = |(file, byte_ms): (Uuid, i128)| FileUsage { file, byte_ms: byte_ms.to_string() };
        Self {
            byte_ms: usage.byte_ms.to_string(),
            gb_hours: Quantity { metered: usage.byte_ms, unit: Unit::GbHour }.to_string(),
            provisional: usage.provisional,
            flags: flags(usage.flags),
            days: usage.days.into_iter().map(day).collect(),
            files: usage.files.into_iter().map(file).collect(),
        }
    }
}

impl From<ComputeUsage<Uuid, Uuid>> for ComputeAnswer {
    fn from(usage: ComputeUsage<Uuid, Uuid>) -> Self {
        let day = |(Day { date, span }, run_ms): (Day, i128)| {
            let (start, end) = ends(span);
            ComputeDay { date: date.to_string(), start, end, run_ms: run_ms.to_string() }
        };
        let user = |(user, run_ms): (Option<Uuid>, i128)| UserUsage { user, run_ms: run_ms.to_string() };
        let mut jobs = Vec::new();
        for job in usage.jobs {
            jobs.push(JobUsage { job: job.job, user: job.user, run_ms: job.run_ms.to_string() });
        }
        Self {
            run_ms: usage.run_ms.to_string(),
            provisional: usage.provisional,
            flags: flags(usage.flags),
            days: usage.days.into_iter().map(day).collect(),
            jobs,
            users: usage.users.into_iter().map(user).collect(),
        }
    }
}

fn ends(span: Span) -> (String, String) {
    (span.start().to_string(), span.end().to_string())
}

fn flags(flags: Vec<Flagged<Uuid>>) -> Vec<FlagAnswer> {
    flags.into_iter().map(|flagged| FlagAnswer { flag: flagged.flag.as_str(), id: flagged.id }).collect()
}
