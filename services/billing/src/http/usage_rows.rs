//! Usage in rows: by the hour, the day or the month, and by somebody or something.
//!
//! The problem: reports and spreadsheets want one row for each of something, all of them, however many there are. The invariant: an
//! answer is bounded, by keys and by rows; pages of keys join without a gap, and the rows of all pages sum to the usage exactly.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use http_kit::{ApiQuery, PageQuery, Problem};
use rating::calendar::slot::{Granularity, slots};
use serde::{Deserialize, Serialize};
use usage::{
    page::Page,
    queries::{
        groups::{self, GroupBy, GroupUsage},
        snapshot::Snapshot,
        usage_query::UsagePage,
    },
};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    export::{
        csv, focus,
        usage_rows::{MAX_ROWS, RowAnswer, in_rows},
    },
    http::{
        access::Viewed,
        question::{Question, QuestionQuery, unprocessable},
        state::Api,
    },
};

const CSV: &str = "text/csv; charset=utf-8; header=present";

/// How finely the period is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EveryName {
    /// By the hour.
    Hour,
    /// By the day.
    #[default]
    Day,
    /// By the calendar month.
    Month,
    /// Not at all.
    Period,
}

/// By what usage is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupByName {
    /// Storage, by file.
    File,
    /// Both, by job.
    Job,
    /// Both, by user: storage by the user who created the job that a share of it belongs to.
    User,
    /// Both, by the configuration of the job.
    JobConfiguration,
    /// Run time, by machine.
    Machine,
    /// Run time, by the type of the machine.
    MachineType,
}

/// In which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// JSON.
    #[default]
    Json,
    /// CSV with the same columns.
    Csv,
    /// CSV with the columns of FOCUS 1.2, at the account's prices: all of the period, not a page of it.
    Focus,
}

/// The query string of rows.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct RowsQuery {
    /// As for usage.
    from: Option<String>,
    /// As for usage.
    to: Option<String>,
    /// The IANA time zone whose hours, days and months are listed; UTC if not said.
    time_zone: Option<String>,
    /// As for usage.
    as_of: Option<String>,
    /// As for usage.
    known_at: Option<String>,
    /// How finely the period is cut; by the day if not said.
    #[serde(default)]
    every: EveryName,
    /// By what usage is told; all together if not said.
    group_by: Option<GroupByName>,
    /// In which form; JSON if not said.
    #[serde(default)]
    format: Format,
    /// The most keys of a page, 1 to 200; 50 if not said, of FOCUS as many as there is room for.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
    /// `next` of the page before; the first page if not said.
    cursor: Option<Uuid>,
}

/// Usage in rows.
#[derive(Debug, Serialize, ToSchema)]
pub struct RowsAnswer {
    organization: Uuid,
    #[schema(value_type = String, format = DateTime)]
    from: String,
    #[schema(value_type = String, format = DateTime)]
    to: String,
    #[schema(value_type = String, format = DateTime)]
    as_of: String,
    #[schema(value_type = Option<String>, format = DateTime)]
    known_at: Option<String>,
    time_zone: String,
    every: EveryName,
    group_by: Option<GroupByName>,
    /// Whether something still runs or is still stored that counts only up to `as_of`.
    provisional: bool,
    /// By key, then by time. What has no key comes first: it is nobody's, or attributed to no job. Of grouped usage, rows of nothing
    /// are left out.
    rows: Vec<RowAnswer>,
    /// The `cursor` of the next page; null on the last one.
    next: Option<Uuid>,
}

/// Usage in rows
///
/// By the hour, the day or the month of a zone, and by file, job, user, job configuration, machine or type of machine. As JSON or CSV; a
/// page of CSV that isn't the last has a `Link` to the next. In the columns of FOCUS, rows have what usage costs, and all of them together
/// come to what `/costs` says, of a month of the account to what its invoice says; keys beyond `limit`, or beyond what an answer
/// has room for, are told together, without a resource.
#[utoipa::path(
    get,
    path = "/api/v1/organizations/{org}/usage/rows",
    tag = "billing",
    params(("org" = Uuid, Path, description = "The organization"), RowsQuery),
    responses(
        (status = 200, content((RowsAnswer = "application/json"), (String = "text/csv"))),
        (status = 400, description = "A parameter is unknown or can't be read", body = Problem),
        (status = 404, description = "There is no such organization for the caller", body = Problem),
        (status = 422, description = "The period is empty or longer than 400 days, the time zone is unknown, or the answer \
            would take too much", body = Problem),
    )
)]
pub async fn rows(
    State(api): State<Api>,
    Viewed(organization): Viewed,
    ApiQuery(query): ApiQuery<RowsQuery>,
) -> Result<Response, Problem> {
    let (limit, said_limit) = (query.limit()?, query.limit);
    let RowsQuery { from, to, time_zone, as_of, known_at, every, group_by, format, cursor, .. } = query;
    let question = QuestionQuery { from, to, time_zone, as_of, known_at }.question(api.ledger.now())?;
    let slots = slots(every.into(), question.window.period, &question.zone).map_err(unprocessable)?;
    if format == Format::Focus {
        if cursor.is_some() {
            return Err(Problem::unprocessable("a data set of FOCUS is given as a whole, and not from a cursor on"));
        }
        if slots.len() > MAX_ROWS {
            return Err(Problem::unprocessable(format!(
                "{} parts of the period are more than {MAX_ROWS}",
                slots.len()
            )));
        }
        let text = focus::export(
            &api.ledger,
            &api.pool,
            question.of(organization),
            &slots,
            group_by.map(GroupBy::from),
            said_limit,
        )
        .await?;
        return Ok(([(header::CONTENT_TYPE, CSV)], text).into_response());
    }
    let keys = if group_by.is_some() { limit.saturating_add(1) } else { 1 };
    if slots.len().saturating_mul(keys) > MAX_ROWS {
        let detail = format!("{} rows for each of {keys} keys are more than {MAX_ROWS}", slots.len());
        return Err(Problem::unprocessable(format!(
            "{detail}; ask for a shorter period, longer parts or a lower limit"
        )));
    }
    let rules = api.ledger.rules(organization, question.window.period).await?;
    let (asked, window) = (question.of(organization), question.window);
    let spans: Vec<_> = slots.iter().map(|slot| slot.span.intersect(window.counted())).collect();
    // Of a period that is over nothing counts only in part, and only names of machine types take another look.
    let alone = group_by.filter(|by| !window.may_be_provisional() && *by != GroupByName::MachineType);
    let (groups, provisional, names) = match alone {
        Some(by) => {
            let page = Page { after: cursor, limit };
            let groups = groups::groups(&api.pool, asked, rules, by.into(), &spans, page).await?;
            (groups, false, BTreeMap::new())
        }
        None => {
            let mut snapshot = Snapshot::of(&api.pool, asked).await?.with_sharing_rules(rules);
            let totals = snapshot.totals(&spans).await?;
            let provisional = totals.storage_provisional || totals.compute_provisional;
            let groups = match group_by {
                Some(by) => snapshot.groups(by.into(), &spans, cursor, limit).await?,
                None => {
                    let whole = GroupUsage { byte_ms: totals.byte_ms, run_ms: totals.run_ms };
                    UsagePage { items: vec![(None, whole)], next: None }
                }
            };
            let names = match group_by {
                Some(GroupByName::MachineType) => snapshot.machine_types(&groups.items).await?,
                _ => BTreeMap::new(),
            };
            (groups, provisional, names)
        }
    };
    let rows = in_rows(&slots, &groups.items, &names, group_by.is_some());
    let body = match format {
        Format::Json => {
            return Ok(
                Json(answer(organization, question, every, group_by, provisional, rows, groups.next)).into_response()
            );
        }
        Format::Csv | Format::Focus => csv::own(&rows, group_by.map(GroupBy::from)),
    };
    let mut response = ([(header::CONTENT_TYPE, CSV)], body).into_response();
    if let Some(next) = groups.next {
        let link = format!("<?cursor={next}>; rel=\"next\"").parse().map_err(Problem::internal)?;
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

fn answer(
    organization: Uuid,
    question: Question,
    every: EveryName,
    group_by: Option<GroupByName>,
    provisional: bool,
    rows: Vec<RowAnswer>,
    next: Option<Uuid>,
) -> RowsAnswer {
    let window = question.window;
    RowsAnswer {
        organization,
        from: window.period.start().to_string(),
        to: window.period.end().to_string(),
        as_of: window.as_of.to_string(),
        known_at: question.known_at.map(|known_at| known_at.to_string()),
        time_zone: question.time_zone,
        every,
        group_by,
        provisional,
        rows,
        next,
    }
}

impl RowsQuery {
    fn limit(&self) -> Result<usize, Problem> {
        let most = PageQuery::MAX_LIMIT as usize;
        match self.limit.unwrap_or(PageQuery::DEFAULT_LIMIT as usize) {
            limit if (1..=most).contains(&limit) => Ok(limit),
            limit => Err(Problem::bad_request(format!("limit is {limit}, it must be 1 to {most}"))),
        }
    }
}

impl From<EveryName> for Granularity {
    fn from(name: EveryName) -> Self {
        match name {
            EveryName::Hour => Self::Hour,
            EveryName::Day => Self::Day,
            EveryName::Month => Self::Month,
            EveryName::Period => Self::Period,
        }
    }
}

impl From<GroupByName> for GroupBy {
    fn from(name: GroupByName) -> Self {
        match name {
            GroupByName::File => Self::File,
            GroupByName::Job => Self::Job,
            GroupByName::User => Self::User,
            GroupByName::JobConfiguration => Self::JobConfiguration,
            GroupByName::Machine => Self::Machine,
            GroupByName::MachineType => Self::MachineType,
        }
    }
}
