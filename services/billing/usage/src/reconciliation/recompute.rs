//! Rows to compare: as they are stored, and recomputed from the changes.

mod files;

pub(super) use files::files;

use std::collections::{BTreeMap, BTreeSet};

use rating::{
    calendar::span::Span,
    metering::level::{LevelChange, LevelSums},
};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::{
    queries::usage_query::MAX_CHANGES,
    read_error::{ReadError, check_limit},
    read_models::{
        runs::{self, RunRecord},
        storage_changes,
    },
    reconciliation::difference::{Areas, Comparisons, NOTHING, RowComparison},
    rollup::{bucket::Width, scope::Scope},
    usage_row::integer,
};

/// The number of jobs of an organization that a step compares.
const JOBS: i64 = 20;

/// The maximum number of machine types.
const MAX_MACHINE_TYPES: i64 = 10_000;

/// The area of machine types.
pub(super) const MACHINE_TYPES: &str = "machine types";

/// The area of comparisons between widths.
pub(super) const WIDTHS: &str = "widths";

/// Returns the area of 32 days, by bucket.
pub(super) fn area_of_days(bucket: i64) -> String {
    format!("32 days {bucket}")
}

/// Compares every bucket of 1,024 days with its buckets of 32 days, and the storage of the organization with
/// all of its files.
pub(super) async fn widths(connection: &mut PgConnection, organization: Uuid) -> Result<Comparisons, ReadError> {
    let query = include_str!("recompute/widths.sql");
    let mut comparisons = Comparisons::new();
    for row in &sqlx::query(query).bind(organization).fetch_all(&mut *connection).await? {
        let (meter, scope): (i16, i16) = (row.try_get("meter")?, row.try_get("scope")?);
        let (bucket, subject): (i64, Uuid) = (row.try_get("bucket")?, row.try_get("subject")?);
        let place = format!("metering_sums meter {meter} scope {scope} subject {subject} 1024 days {bucket}");
        comparisons
            .insert(place, RowComparison { stored: row.try_get("stored")?, recomputed: row.try_get("recomputed")? });
    }
    let query = include_str!("recompute/storage_total.sql");
    let row = sqlx::query(query).bind(organization).fetch_one(connection).await?;
    let compared = RowComparison { stored: row.try_get("stored")?, recomputed: row.try_get("recomputed")? };
    comparisons.insert("metering_sums of storage and metering_files, all together".to_owned(), compared);
    Ok(comparisons)
}

type Key = (i16, i16, Uuid, i16, i64);

/// Returns the bucket of 32 days that the round selects, and buckets with known differences.
pub(super) async fn buckets(
    connection: &mut PgConnection,
    organization: Uuid,
    round: i64,
    wrong: &[String],
) -> Result<BTreeSet<i64>, ReadError> {
    let query = include_str!("recompute/bucket_of_round.sql");
    let turn: Option<i64> = sqlx::query_scalar(query).bind(organization).bind(round).fetch_optional(connection).await?;
    let known = wrong.iter().filter_map(|area| area.strip_prefix("32 days ")?.parse().ok());
    Ok(turn.into_iter().chain(known).collect())
}

/// Compares all buckets of 32 days or less within one bucket of 32 days.
pub(super) async fn days(
    connection: &mut PgConnection,
    organization: Uuid,
    bucket: i64,
) -> Result<Comparisons, ReadError> {
    let span = Width::Days32.span(bucket);
    let mut recomputed: BTreeMap<Key, LevelSums> = BTreeMap::new();
    for (scope, subject, change) in changes(connection, organization, span).await? {
        let (meter, number) = scope.numbers();
        for width in [Width::Hour, Width::Day, Width::Days32] {
            let key = (meter, number, subject.unwrap_or_default(), width.number(), width.bucket(change.at));
            recomputed.entry(key).or_default().add(change);
        }
    }
    let mut comparisons = Comparisons::new();
    for width in [Width::Hour, Width::Day, Width::Days32] {
        let query = "select meter, scope, subject, width, bucket, s0::text, s1::text from metering_sums \
             where organization_id = $1 and width = $2 and bucket >= $3 and bucket < $4";
        let rows = sqlx::query(query)
            .bind(organization)
            .bind(width.number())
            .bind(width.bucket(span.start()))
            .bind(width.bucket(span.end()))
            .fetch_all(&mut *connection)
            .await?;
        for row in &rows {
            let key = (
                row.try_get("meter")?,
                row.try_get("scope")?,
                row.try_get("subject")?,
                row.try_get("width")?,
                row.try_get("bucket")?,
            );
            let stored = text_of(LevelSums::new(integer(row, "s0")?, integer(row, "s1")?));
            let recomputed = recomputed.remove(&key).map_or_else(|| NOTHING.to_owned(), text_of);
            comparisons.insert(place(key), RowComparison { stored, recomputed });
        }
    }
    for (key, sums) in recomputed {
        comparisons.insert(place(key), RowComparison { stored: NOTHING.to_owned(), recomputed: text_of(sums) });
    }
    Ok(comparisons)
}

fn place((meter, scope, subject, width, bucket): Key) -> String {
    format!("metering_sums meter {meter} scope {scope} subject {subject} {} {bucket}", width_name(width))
}

fn width_name(width: i16) -> &'static str {
    ["hour", "day", "32 days", "1024 days"].get(usize::try_from(width).unwrap_or_default()).copied().unwrap_or_default()
}

/// Zero sums count as no row, since a correction leaves an empty row behind.
fn text_of(sums: LevelSums) -> String {
    match sums.parts() {
        (0, 0) => NOTHING.to_owned(),
        (s0, s1) => format!("{s0} {s1}"),
    }
}

/// Returns all level changes of an organization in a span.
async fn changes(
    connection: &mut PgConnection,
    organization: Uuid,
    span: Span,
) -> Result<Vec<(Scope, Option<Uuid>, LevelChange)>, ReadError> {
    let mut all = Vec::new();
    for changes in storage_changes::within(connection, organization, span, MAX_CHANGES).await?.into_values() {
        all.extend(changes.into_iter().map(|change| (Scope::Storage, None, change)));
    }
    for run in runs::within(connection, organization, span, MAX_CHANGES).await? {
        for change in RunRecord::level_changes(run.recorded.run.run) {
            if span.start() <= change.at && change.at < span.end() {
                all.extend(run.subjects().map(|(scope, subject)| (scope, subject, change)));
            }
        }
    }
    Ok(all)
}

/// Compares the runs of a sample of jobs, and of jobs with known differences, with a pairing of their
/// moments.
pub(super) async fn jobs(
    connection: &mut PgConnection,
    organization: Uuid,
    round: i64,
    wrong: &[String],
) -> Result<Areas, ReadError> {
    let query = include_str!("recompute/jobs_of_round.sql");
    let mut ids: Vec<Uuid> =
        sqlx::query_scalar(query).bind(organization).bind(round).bind(JOBS).fetch_all(&mut *connection).await?;
    ids.extend(wrong.iter().filter_map(|area| area.strip_prefix("job ")?.parse::<Uuid>().ok()));
    let stored = runs::runs_of_jobs(connection, &ids).await?;
    let recomputed = runs::paired_runs(connection, &ids).await?;
    let text_of = |runs: &BTreeMap<(Uuid, i64), RunRecord>, job: Uuid| {
        let runs: Vec<_> = runs.range((job, i64::MIN)..=(job, i64::MAX)).map(|(_, run)| format!("{run:?}")).collect();
        if runs.is_empty() { NOTHING.to_owned() } else { runs.join(", ") }
    };
    let mut areas = Areas::new();
    for job in ids {
        let compared = RowComparison { stored: text_of(&stored, job), recomputed: text_of(&recomputed, job) };
        areas.insert(format!("job {job}"), Comparisons::from([(format!("runs job {job}"), compared)]));
    }
    Ok(areas)
}

const MACHINE_TYPES_OF_STARTS: &str = include_str!("recompute/machine_types.sql");

/// Compares all machine types: the name of each, and the id derived from it.
pub(super) async fn machine_types(connection: &mut PgConnection) -> Result<Comparisons, ReadError> {
    let mut comparisons = Comparisons::new();
    let query = sqlx::query(MACHINE_TYPES_OF_STARTS).bind(MAX_MACHINE_TYPES.saturating_add(1)).bind(NOTHING);
    for row in &query.fetch_all(connection).await? {
        let id: Uuid = row.try_get("id")?;
        let compared = RowComparison { stored: row.try_get("stored")?, recomputed: row.try_get("recomputed")? };
        comparisons.insert(format!("machine_types {id}"), compared);
    }
    check_limit(comparisons.len(), MAX_MACHINE_TYPES, "types of machines")?;
    Ok(comparisons)
}
