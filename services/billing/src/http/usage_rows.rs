//! Usage rows: usage by hour, day or month, grouped by file, job, user, job configuration, machine or machine type.
//!
//! A response is bounded, by keys and by rows. Pages of keys are gapless, and the rows of all pages sum to the usage exactly.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use http_kit::{ApiQuery, PageQuery, Problem};
use rating::{
    calendar::{
        slot::{Granularity, slots},
        span::Span,
    },
    sharing::rule::SharingRules,
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use usage::{
    page::Page,
    queries::{
        groups::{self, GroupBy, GroupUsage},
        snapshot::Snapshot,
        usage_query::{UsagePage, UsageQuery},
    },
    read_error::ReadError,
};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    export::{
        csv, focus,
        usage_rows::{MAX_ROWS, UsageRow, usage_rows},
    },
    http::{
        access::ViewedOrganization,
        parameters::OrganizationPath,
        problems::ReadProblems,
        report_period::{ReportPeriodQuery, ReportPeriodResponse, unprocessable},
        state::Api,
    },
};

const CSV: &str = "text/csv; charset=utf-8; header=present";

/// The slots that the period is divided into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum UsageGranularity {
    /// One slot for each hour.
    Hour,
    /// One slot for each day.
    #[default]
    Day,
    /// One slot for each calendar month.
    Month,
    /// One slot for the whole period.
    Period,
}

impl From<UsageGranularity> for Granularity {
    fn from(granularity: UsageGranularity) -> Self {
        match granularity {
            UsageGranularity::Hour => Self::Hour,
            UsageGranularity::Day => Self::Day,
            UsageGranularity::Month => Self::Month,
            UsageGranularity::Period => Self::Period,
        }
    }
}

/// The key that usage is grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum UsageGrouping {
    /// Storage by file.
    File,
    /// Storage and run time by job.
    Job,
    /// Storage and run time by user. A job's share of a file belongs to the user who created the job.
    User,
    /// Storage and run time by job configuration.
    JobConfiguration,
    /// Run time by machine.
    Machine,
    /// Run time by machine type.
    MachineType,
}

impl From<UsageGrouping> for GroupBy {
    fn from(grouping: UsageGrouping) -> Self {
        match grouping {
            UsageGrouping::File => Self::File,
            UsageGrouping::Job => Self::Job,
            UsageGrouping::User => Self::User,
            UsageGrouping::JobConfiguration => Self::JobConfiguration,
            UsageGrouping::Machine => Self::Machine,
            UsageGrouping::MachineType => Self::MachineType,
        }
    }
}

/// The format of usage rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum UsageRowsFormat {
    #[default]
    Json,
    /// CSV with the columns of the JSON rows.
    Csv,
    /// CSV with the columns of FOCUS 1.2, at the account's prices. Covers the whole period at once, without pages.
    Focus,
}

/// The query string of usage rows.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct UsageRowsQuery {
    /// First instant of the period (RFC 3339). Default: the start of the UTC month that contains the last instant of the
    /// period. Without any parameters, this is the current month.
    #[param(example = "2025-10-01T00:00:00Z")]
    from: Option<String>,
    /// First instant after the period (RFC 3339, default: `as_of`), at most 400 days after `from`.
    #[param(example = "2025-11-01T00:00:00Z")]
    to: Option<String>,
    /// IANA time zone of the hours, days and months (default: UTC).
    #[param(example = "Europe/Madrid", default = "UTC")]
    time_zone: Option<String>,
    /// Evaluates usage as of this instant (RFC 3339, default: now). Running jobs and stored files are counted up to it.
    #[param(example = "2025-10-26T12:00:00Z")]
    as_of: Option<String>,
    /// Leaves out all events that were recorded after this instant (RFC 3339). Default: all recorded events count.
    #[param(example = "2025-11-02T00:00:00Z")]
    known_at: Option<String>,
    /// The slots that the period is divided into (default: `day`).
    #[serde(default)]
    #[param(example = "day")]
    every: UsageGranularity,
    /// The key that usage is grouped by. Default: all usage together.
    #[param(example = "job")]
    group_by: Option<UsageGrouping>,
    /// The format of the response (default: `json`).
    #[serde(default)]
    #[param(example = "csv")]
    format: UsageRowsFormat,
    /// The maximum number of keys on a page, 1 to 200 (default: 50). With `format=focus`, the maximum number of keys with rows
    /// of their own (default: as many as the response has room for).
    #[param(minimum = 1, maximum = 200, example = 50)]
    limit: Option<usize>,
    /// The `next` value of the previous page (default: the first page).
    #[param(example = "019a1f00-0000-7000-8000-000000000000")]
    cursor: Option<Uuid>,
}

impl UsageRowsQuery {
    fn limit(&self) -> Result<usize, Problem> {
        let most = PageQuery::MAX_LIMIT as usize;
        match self.limit.unwrap_or(PageQuery::DEFAULT_LIMIT as usize) {
            limit if (1..=most).contains(&limit) => Ok(limit),
            limit => Err(Problem::bad_request(format!("limit is {limit}, it must be from 1 to {most}"))),
        }
    }
}

/// One page of usage rows.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UsageRowsResponse {
    organization: Uuid,
    #[serde(flatten)]
    period: ReportPeriodResponse,
    every: UsageGranularity,
    group_by: Option<UsageGrouping>,
    /// Whether jobs are still running or files are still stored, so that the usage grows after `as_of`.
    provisional: bool,
    /// Rows by key, then by time. Rows without a key come first: usage without a user, or attributed to no job. Grouped usage has
    /// no rows without usage.
    rows: Vec<UsageRowResponse>,
    /// The `cursor` of the next page. Null on the last page.
    next: Option<Uuid>,
}

/// Usage of one key in one slot of the period.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsageRow)]
struct UsageRowResponse {
    /// The date of the slot, or its month.
    #[schema(example = "2025-10-26")]
    date: String,
    #[schema(value_type = String, format = DateTime)]
    start: String,
    #[schema(value_type = String, format = DateTime)]
    end: String,
    /// An id, or the name of a machine type. Null for usage without a key.
    #[schema(example = "019a1f00-0000-7000-8000-000000000000")]
    key: Option<String>,
    /// Stored bytes times milliseconds, exact. Null where the grouping does not cover storage.
    byte_ms: Option<String>,
    /// The same in GB-hours (10⁹ bytes for one hour), truncated to 12 decimal places.
    gb_hours: Option<String>,
    /// Run time in milliseconds, exact. Null where the grouping does not cover run time.
    run_ms: Option<String>,
}

impl From<UsageRow> for UsageRowResponse {
    fn from(row: UsageRow) -> Self {
        Self {
            gb_hours: row.gb_hours(),
            start: row.slot.span.start().to_string(),
            end: row.slot.span.end().to_string(),
            date: row.slot.date,
            key: row.key,
            byte_ms: row.byte_ms.map(|byte_ms| byte_ms.to_string()),
            run_ms: row.run_ms.map(|run_ms| run_ms.to_string()),
        }
    }
}

/// List usage rows
///
/// Returns usage by hour, day or month, grouped by file, job, user, job configuration, machine or machine type, as JSON or CSV.
/// A CSV page that is not the last has a `Link` header with the next page. `format=focus` returns costs as a FOCUS data set:
/// its rows sum to the total of `/costs`, and for a calendar month of the account to its invoice. Keys beyond `limit` are
/// combined in rows without a resource.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/usage/rows", tag = "billing", params(OrganizationPath, UsageRowsQuery),
    responses(
        (status = 200, description = "One page of usage rows.",
            content((UsageRowsResponse = "application/json"), (String = "text/csv")),
            headers(("Link" = String, description = "The next page, of CSV only: `<?cursor=…>; rel=\"next\"`."))),
        (status = 422, description = "The period is empty or longer than 400 days, the time zone is unknown, the response would \
            exceed 20,000 rows, or a FOCUS request has a cursor.", body = Problem, content_type = "application/problem+json"),
        ReadProblems,
    )
)]
pub(super) async fn list_usage_rows(
    State(api): State<Api>,
    ViewedOrganization(organization): ViewedOrganization,
    ApiQuery(query): ApiQuery<UsageRowsQuery>,
) -> Result<Response, Problem> {
    let (limit, requested_limit) = (query.limit()?, query.limit);
    let UsageRowsQuery { from, to, time_zone, as_of, known_at, every, group_by, format, cursor, .. } = query;
    let report = ReportPeriodQuery { from, to, time_zone, as_of, known_at }.resolve(api.ledger.now())?;
    let slots = slots(every.into(), report.window.period, &report.zone).map_err(unprocessable)?;
    let key = group_by.map(GroupBy::from);
    if format == UsageRowsFormat::Focus {
        if cursor.is_some() {
            return Err(Problem::unprocessable("a FOCUS data set covers the whole period and takes no cursor"));
        }
        if slots.len() > MAX_ROWS {
            let count = slots.len();
            return Err(Problem::unprocessable(format!("the period has {count} slots, the limit is {MAX_ROWS}")));
        }
        let query = report.usage_query(organization);
        let data_set = focus::export(&api.ledger, &api.pool, query, &slots, key, requested_limit).await?;
        return Ok(([(header::CONTENT_TYPE, CSV)], data_set).into_response());
    }
    let keys = if group_by.is_some() { limit.saturating_add(1) } else { 1 };
    if slots.len().saturating_mul(keys) > MAX_ROWS {
        let count = slots.len();
        return Err(Problem::unprocessable(format!(
            "{count} slots for each of {keys} keys exceed the limit of {MAX_ROWS} rows; \
             request a shorter period, longer slots or a lower limit"
        )));
    }
    let rules = api.ledger.rules(organization, report.window.period).await?;
    let spans: Vec<_> = slots.iter().map(|slot| slot.span.intersect(report.window.counted())).collect();
    let (query, page) = (report.usage_query(organization), Page { after: cursor, limit });
    let GroupedUsage { groups, names, provisional } =
        read_grouped_usage(&api.pool, query, rules, key, &spans, page).await?;
    let rows = usage_rows(&slots, &groups.items, &names, group_by.is_some());
    if format == UsageRowsFormat::Json {
        let rows = rows.into_iter().map(UsageRowResponse::from).collect();
        let period = (&report).into();
        let body = UsageRowsResponse { organization, period, every, group_by, provisional, rows, next: groups.next };
        return Ok(Json(body).into_response());
    }
    let mut response = ([(header::CONTENT_TYPE, CSV)], csv::usage_rows_csv(&rows, key)).into_response();
    if let Some(next) = groups.next {
        let link = format!("<?cursor={next}>; rel=\"next\"").parse().map_err(Problem::internal)?;
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

/// One page of grouped usage.
struct GroupedUsage {
    groups: UsagePage<(Option<Uuid>, GroupUsage)>,
    /// The names of machine types by id. Empty for other groupings.
    names: BTreeMap<Uuid, String>,
    provisional: bool,
}

/// Reads the usage of each span, grouped by key.
///
/// Usage of a period in the past is never provisional, so one statement is enough. The names of machine types and the provisional
/// flag need further statements, which read from the same snapshot.
async fn read_grouped_usage(
    pool: &PgPool,
    query: UsageQuery,
    rules: SharingRules,
    group_by: Option<GroupBy>,
    spans: &[Span],
    page: Page,
) -> Result<GroupedUsage, ReadError> {
    let window = query.window;
    if let Some(by) = group_by.filter(|by| !window.may_be_provisional() && *by != GroupBy::MachineType) {
        let groups = groups::groups(pool, query, rules, by, spans, page).await?;
        return Ok(GroupedUsage { groups, names: BTreeMap::new(), provisional: false });
    }
    let mut snapshot = Snapshot::of(pool, query).await?.with_sharing_rules(rules);
    let totals = snapshot.totals(spans).await?;
    let provisional = totals.storage_provisional || totals.compute_provisional;
    let groups = match group_by {
        Some(by) => snapshot.groups(by, spans, page.after, page.limit).await?,
        None => {
            let all = GroupUsage { byte_ms: totals.byte_ms, run_ms: totals.run_ms };
            UsagePage { items: vec![(None, all)], next: None }
        }
    };
    let names = match group_by {
        Some(GroupBy::MachineType) => snapshot.machine_types(&groups.items).await?,
        _ => BTreeMap::new(),
    };
    Ok(GroupedUsage { groups, names, provisional })
}
