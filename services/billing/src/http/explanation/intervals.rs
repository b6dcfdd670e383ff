//! The intervals of a day: the sizes of files, the runs of jobs, and the events that began and ended them.

use std::collections::BTreeSet;

use epoch::Timestamp;
use http_kit::Problem;
use rating::{
    calendar::span::Span,
    metering::level::{LevelChange, segments},
};
use usage::queries::{
    origins::{Origin, RunOrigin, Told},
    question::Part,
};
use uuid::Uuid;

use crate::{
    http::explanation::{
        query::ExplanationQuery,
        response::{
            DayIntervalsResponse, RunEventResponse, RunIntervalResponse, SizeChangeEventResponse,
            StoredIntervalResponse,
        },
    },
    invoicing::{ledger::Ledger, month_usage::Cutoff},
};

/// The maximum number of files and of jobs in a response.
const MAX_LISTED: usize = 100;

/// Returns the intervals of a day. `parts` are the parts of the day in which one plan applies; intervals end where they end.
pub(super) async fn day_intervals(
    ledger: &Ledger,
    organization: Uuid,
    cutoff: Cutoff,
    parts: &[Span],
    query: &ExplanationQuery,
) -> Result<Option<DayIntervalsResponse>, Problem> {
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return Ok(None) };
    let day = Span::new(first.start(), last.end());
    let mut snapshot = ledger.snapshot(organization, day, cutoff).await?;
    let Part { items: files, next: next_file } = snapshot.origins_of_files(query.after_file, MAX_LISTED).await?;
    let Part { items: runs, next: next_job } = snapshot.origins_of_runs(query.after_job, MAX_LISTED).await?;
    let counted: Vec<_> = parts.iter().map(|part| part.intersect(snapshot.counted())).collect();
    let mut stored = Vec::new();
    for (file, origins) in &files {
        stored.extend(counted.iter().flat_map(|part| stored_intervals(*file, origins, *part)));
    }
    let mut ran = Vec::new();
    for origin in &runs {
        ran.extend(counted.iter().filter_map(|part| run_interval(origin, *part, cutoff.as_of)));
    }
    Ok(Some(DayIntervalsResponse { stored, ran, next_file, next_job }))
}

/// Returns the intervals in which the size of a file is constant. Each has the events of the last instant at which the size
/// changed, which may be before the day.
fn stored_intervals(file: Uuid, origins: &[Origin], counted: Span) -> Vec<StoredIntervalResponse> {
    let changes: Vec<LevelChange> = origins.iter().map(|origin| origin.change).collect();
    let instants: BTreeSet<Timestamp> = changes.iter().map(|change| change.at).collect();
    let mut intervals = Vec::new();
    for segment in segments(&changes, counted).into_iter().filter(|segment| segment.level != 0) {
        let since = instants.range(..=segment.span.start()).next_back();
        let began = origins.iter().filter(|origin| Some(&origin.change.at) == since);
        let event = |origin: &Origin| SizeChangeEventResponse {
            id: origin.event,
            occurred_at: origin.change.at.to_string(),
            recorded_at: origin.recorded_at.to_string(),
            delta_bytes: origin.change.delta,
        };
        intervals.push(StoredIntervalResponse {
            file,
            start: segment.span.start().to_string(),
            end: segment.span.end().to_string(),
            bytes: segment.level.to_string(),
            byte_ms: (segment.level * segment.span.millis()).to_string(),
            events: began.map(event).collect(),
        });
    }
    intervals
}

fn run_interval(origin: &RunOrigin, counted: Span, as_of: Timestamp) -> Option<RunIntervalResponse> {
    let run = &origin.run;
    let millis = run.run.millis_within(counted, as_of);
    (millis != 0).then(|| RunIntervalResponse {
        job: run.job,
        user: run.user,
        run_ms: millis.to_string(),
        started: run_event(origin.started_by, run.run.started_at),
        ended: run_event(origin.ended_by, run.run.ended_at),
    })
}

fn run_event(told: Told, at: Option<Timestamp>) -> Option<RunEventResponse> {
    let recorded_at = told.recorded_at.map(|at| at.to_string());
    at.map(|at| RunEventResponse { id: told.event, occurred_at: at.to_string(), recorded_at })
}
