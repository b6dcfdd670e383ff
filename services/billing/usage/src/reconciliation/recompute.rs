//! The rows that are compared: as they are kept, and as the plain functions make them of the changes.

use std::collections::{BTreeMap, BTreeSet};

use epoch::Timestamp;
use futures::TryStreamExt;
use rating::{
    calendar::span::Span,
    metering::level::{LevelChange, LevelSums},
};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::{
    queries::question::MAX_CHANGES,
    read_error::{ReadError, bounded},
    read_models::{
        runs::{self, KeptRun},
        storage_changes,
    },
    reconciliation::difference::{Areas, Compared, NOTHING, Places},
    rollup::{bucket::Width, sums::Scope},
    row::whole,
};

/// How many files of an organization are compared in a step.
const FILES: i64 = 20;
/// How many jobs.
const JOBS: i64 = 20;

/// The most types of machines.
const MAX_MACHINE_TYPES: i64 = 10_000;

/// The area of the types of machines.
pub(super) const MACHINE_TYPES: &str = "machine types";

/// The area of what is compared with other sums.
pub(super) const WIDTHS: &str = "widths";

/// The area of 32 days, by their bucket.
pub(super) fn area_of_days(bucket: i64) -> String {
    format!("32 days {bucket}")
}

fn area_of_file(file: Uuid) -> String {
    format!("file {file}")
}

/// Every bucket of 1,024 days with the 32-day buckets in it, and all of an organization's storage with all its files.
pub(super) async fn widths(connection: &mut PgConnection, organization: Uuid) -> Result<Places, ReadError> {
    let query = "select coalesce(wide.meter, narrow.meter) as meter, coalesce(wide.scope, narrow.scope) as scope, \
             coalesce(wide.bucket, narrow.bucket) as bucket, coalesce(wide.subject, narrow.subject) as subject, \
             coalesce(wide.s0::text || ' ' || wide.s1::text, 'nothing') as kept, \
             coalesce(narrow.s0::text || ' ' || narrow.s1::text, 'nothing') as recomputed \
         from (select * from metering_sums where organization_id = $1 and width = 3) wide \
         full join ( \
             select meter, scope, metering_bucket(bucket, 32) as bucket, subject, sum(s0) as s0, sum(s1) as s1 \
             from metering_sums where organization_id = $1 and width = 2 group by 1, 2, 3, 4 \
         ) narrow using (meter, scope, bucket, subject)";
    let mut places = Places::new();
    for row in &sqlx::query(query).bind(organization).fetch_all(&mut *connection).await? {
        let (meter, scope): (i16, i16) = (row.try_get("meter")?, row.try_get("scope")?);
        let (bucket, subject): (i64, Uuid) = (row.try_get("bucket")?, row.try_get("subject")?);
        let place = format!("metering_sums meter {meter} scope {scope} subject {subject} 1024 days {bucket}");
        places.insert(place, Compared { kept: row.try_get("kept")?, recomputed: row.try_get("recomputed")? });
    }
    let query = "select coalesce((select sum(s0)::text || ' ' || sum(s1)::text from metering_sums \
                 where organization_id = $1 and meter = 1 and scope = 0 and width = 3), 'nothing') as kept, \
             coalesce((select sum(s0)::text || ' ' || sum(s1)::text from metering_files \
                 where organization_id = $1), 'nothing') as recomputed";
    let row = sqlx::query(query).bind(organization).fetch_one(connection).await?;
    let compared = Compared { kept: row.try_get("kept")?, recomputed: row.try_get("recomputed")? };
    places.insert("metering_sums of storage and metering_files, all together".to_owned(), compared);
    Ok(places)
}

type Key = (i16, i16, Uuid, i16, i64);

/// The bucket of 32 days whose turn it is, and those in which something was wrong.
pub(super) async fn buckets(
    connection: &mut PgConnection,
    organization: Uuid,
    round: i64,
    wrong: &[String],
) -> Result<BTreeSet<i64>, ReadError> {
    let query = "with buckets as ( \
             select distinct bucket from metering_sums where organization_id = $1 and width = 2 \
         ) select bucket from buckets order by bucket offset $2 % greatest((select count(*) from buckets), 1) limit 1";
    let turn: Option<i64> = sqlx::query_scalar(query).bind(organization).bind(round).fetch_optional(connection).await?;
    let known = wrong.iter().filter_map(|area| area.strip_prefix("32 days ")?.parse().ok());
    Ok(turn.into_iter().chain(known).collect())
}

/// All buckets of 32 days and narrower in 32 days of an organization.
pub(super) async fn days(connection: &mut PgConnection, organization: Uuid, bucket: i64) -> Result<Places, ReadError> {
    let span = Width::Days32.span(bucket);
    let mut recomputed: BTreeMap<Key, LevelSums> = BTreeMap::new();
    for (scope, subject, change) in changes(connection, organization, span).await? {
        let (meter, number) = scope.numbers();
        for width in [Width::Hour, Width::Day, Width::Days32] {
            let key = (meter, number, subject.unwrap_or_default(), width.number(), width.bucket(change.at));
            recomputed.entry(key).or_default().add(change);
        }
    }
    let mut places = Places::new();
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
            let kept = shown(LevelSums::of(whole(row, "s0")?, whole(row, "s1")?));
            let recomputed = recomputed.remove(&key).map_or_else(|| NOTHING.to_owned(), shown);
            places.insert(place(key), Compared { kept, recomputed });
        }
    }
    for (key, sums) in recomputed {
        places.insert(place(key), Compared { kept: NOTHING.to_owned(), recomputed: shown(sums) });
    }
    Ok(places)
}

fn place((meter, scope, subject, width, bucket): Key) -> String {
    format!("metering_sums meter {meter} scope {scope} subject {subject} {} {bucket}", width_name(width))
}

fn width_name(width: i16) -> &'static str {
    ["hour", "day", "32 days", "1024 days"].get(usize::try_from(width).unwrap_or_default()).copied().unwrap_or_default()
}

/// Sums of nothing are nothing: what was put right leaves an empty row behind.
fn shown(sums: LevelSums) -> String {
    match sums.kept() {
        (0, 0) => NOTHING.to_owned(),
        (s0, s1) => format!("{s0} {s1}"),
    }
}

/// All level changes of an organization in a span.
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
        for change in KeptRun::level_changes(run.recorded.run.run) {
            if span.start() <= change.at && change.at < span.end() {
                all.extend(run.subjects().map(|(scope, subject)| (scope, subject, change)));
            }
        }
    }
    Ok(all)
}

/// Some files, others in each round, and those that were wrong.
pub(super) async fn files(
    connection: &mut PgConnection,
    organization: Uuid,
    round: i64,
    wrong: &[String],
) -> Result<Areas, ReadError> {
    let query = "with files as (select count(*) as count from metering_files where organization_id = $1) \
         select file_id from metering_files where organization_id = $1 order by file_id \
         offset ($2 * $3) % greatest((select count from files), 1) limit $3";
    let mut ids: Vec<Uuid> =
        sqlx::query_scalar(query).bind(organization).bind(round).bind(FILES).fetch_all(&mut *connection).await?;
    ids.extend(wrong.iter().filter_map(|area| area.strip_prefix("file ")?.parse::<Uuid>().ok()));
    let query = "select file_id, s0::text, s1::text, first_at, last_at, lowest::text, changes, has_sums \
         from metering_files where organization_id = $1 and file_id = any($2)";
    let mut kept: BTreeMap<Uuid, (String, Option<i64>, bool)> = BTreeMap::new();
    for row in &sqlx::query(query).bind(organization).bind(&ids).fetch_all(&mut *connection).await? {
        let (first_at, last_at): (i64, i64) = (row.try_get("first_at")?, row.try_get("last_at")?);
        let (sums, lowest) = (shown(LevelSums::of(whole(row, "s0")?, whole(row, "s1")?)), whole(row, "lowest")?);
        let (changes, has_sums) = (row.try_get("changes")?, row.try_get("has_sums")?);
        let shown = format!("{sums} from {first_at} to {last_at} lowest {lowest} changes {}", counted(changes));
        kept.insert(row.try_get("file_id")?, (shown, changes, has_sums));
    }
    let mut sums = sums_of_files(connection, organization, &ids).await?;
    let mut recomputed = changes_of_files(connection, organization, &ids).await?;
    let mut areas = Areas::new();
    for file in ids.into_iter().collect::<BTreeSet<_>>() {
        let (kept, changes, has_sums) = kept.remove(&file).unwrap_or_else(|| (NOTHING.to_owned(), None, false));
        let of_changes = recomputed.remove(&file).unwrap_or_default();
        // A file of few changes needs none, but those that are there must be right.
        let mut sums = sums.remove(&file).unwrap_or_default();
        let wanted = if has_sums || !sums.is_empty() { of_changes.buckets.clone() } else { BTreeMap::new() };
        let mut places = Places::new();
        for (key, wanted) in &wanted {
            let kept = sums.remove(key).map_or_else(|| NOTHING.to_owned(), shown);
            places.insert(place_of_file(file, *key), Compared { kept, recomputed: shown(*wanted) });
        }
        for (key, kept) in sums {
            let compared = Compared { kept: shown(kept), recomputed: NOTHING.to_owned() };
            places.insert(place_of_file(file, key), compared);
        }
        let recomputed = of_changes.shown(changes.is_some());
        places.insert(format!("metering_files file {file}"), Compared { kept, recomputed });
        areas.insert(area_of_file(file), places);
    }
    Ok(areas)
}

/// The width and the bucket.
type FileKey = (i16, i64);

fn place_of_file(file: Uuid, (width, bucket): FileKey) -> String {
    format!("metering_file_sums file {file} {} {bucket}", width_name(width))
}

fn counted(changes: Option<i64>) -> String {
    changes.map_or_else(|| "not counted".to_owned(), |changes| changes.to_string())
}

/// The kept sums of files.
async fn sums_of_files(
    connection: &mut PgConnection,
    organization: Uuid,
    files: &[Uuid],
) -> Result<BTreeMap<Uuid, BTreeMap<FileKey, LevelSums>>, ReadError> {
    let query = "select file_id, width, bucket, s0::text, s1::text from metering_file_sums \
         where organization_id = $1 and file_id = any($2)";
    let mut all: BTreeMap<Uuid, BTreeMap<FileKey, LevelSums>> = BTreeMap::new();
    for row in &sqlx::query(query).bind(organization).bind(files).fetch_all(connection).await? {
        let key = (row.try_get("width")?, row.try_get("bucket")?);
        let sums = LevelSums::of(whole(row, "s0")?, whole(row, "s1")?);
        all.entry(row.try_get("file_id")?).or_default().insert(key, sums);
    }
    Ok(all)
}

/// What a file's changes come to, taken in one by one in the order of time.
#[derive(Debug, Default)]
struct OfChanges {
    sums: LevelSums,
    buckets: BTreeMap<FileKey, LevelSums>,
    instants: Option<(Timestamp, Timestamp)>,
    /// The least it held before the last instant.
    lowest: i128,
    changes: i64,
}

impl OfChanges {
    fn add(&mut self, change: LevelChange) {
        let (first, last) = self.instants.unwrap_or((change.at, change.at));
        if last < change.at {
            self.lowest = self.lowest.min(self.sums.level());
        }
        self.instants = Some((first, change.at));
        self.sums.add(change);
        for width in Width::ALL {
            self.buckets.entry((width.number(), width.bucket(change.at))).or_default().add(change);
        }
        self.changes += 1;
    }

    fn shown(&self, with_count: bool) -> String {
        let Some((first, last)) = self.instants else { return NOTHING.to_owned() };
        let lowest = self.lowest.min(self.sums.level());
        let (sums, changes) = (shown(self.sums), counted(with_count.then_some(self.changes)));
        format!("{sums} from {} to {} lowest {lowest} changes {changes}", first.as_millis(), last.as_millis())
    }
}

/// What the changes of files come to, of however many.
async fn changes_of_files(
    connection: &mut PgConnection,
    organization: Uuid,
    files: &[Uuid],
) -> Result<BTreeMap<Uuid, OfChanges>, ReadError> {
    let query = "select file_id, at, delta_bytes from storage_changes where organization_id = $1 and file_id = any($2) \
         order by file_id, at";
    let mut rows = sqlx::query(query).bind(organization).bind(files).fetch(connection);
    let mut all: BTreeMap<Uuid, OfChanges> = BTreeMap::new();
    while let Some(row) = rows.try_next().await? {
        let at = Timestamp::from_millis(row.try_get("at")?);
        let change = LevelChange { at, delta: row.try_get("delta_bytes")? };
        all.entry(row.try_get("file_id")?).or_default().add(change);
    }
    Ok(all)
}

/// Some jobs, others in each round, and those that were wrong: their runs with what their starts and ends make.
pub(super) async fn jobs(
    connection: &mut PgConnection,
    organization: Uuid,
    round: i64,
    wrong: &[String],
) -> Result<Areas, ReadError> {
    let query = "with jobs as (select distinct job_id from job_moments where organization_id = $1) \
         select job_id from jobs order by job_id \
         offset ($2 * $3) % greatest((select count(*) from jobs), 1) limit $3";
    let mut ids: Vec<Uuid> =
        sqlx::query_scalar(query).bind(organization).bind(round).bind(JOBS).fetch_all(&mut *connection).await?;
    ids.extend(wrong.iter().filter_map(|area| area.strip_prefix("job ")?.parse::<Uuid>().ok()));
    let kept = runs::of_jobs(connection, &ids).await?;
    let recomputed = runs::paired(connection, &ids).await?;
    let shown = |runs: &BTreeMap<(Uuid, i64), KeptRun>, job: Uuid| {
        let runs: Vec<_> = runs.range((job, i64::MIN)..=(job, i64::MAX)).map(|(_, run)| format!("{run:?}")).collect();
        if runs.is_empty() { NOTHING.to_owned() } else { runs.join(", ") }
    };
    let mut areas = Areas::new();
    for job in ids {
        let compared = Compared { kept: shown(&kept, job), recomputed: shown(&recomputed, job) };
        areas.insert(format!("job {job}"), Places::from([(format!("runs job {job}"), compared)]));
    }
    Ok(areas)
}

/// The types that jobs were told to start on, one look-up in an index each, beside those that are kept.
const OF_STARTS: &str = "with recursive told as ( \
         (select machine_type as name, 1::bigint as number from job_moments where machine_type is not null \
             order by machine_type limit 1) \
         union all \
         select (select m.machine_type from job_moments m where m.machine_type > told.name order by m.machine_type limit 1), \
             number + 1 \
         from told where told.name is not null and number < $1 \
     ) select coalesce(k.id, machine_type_id(t.name)) as id, coalesce(k.name, $2) as kept, coalesce(t.name, $2) as recomputed \
     from (select name from told where name is not null) t full join machine_types k on k.id = machine_type_id(t.name) \
     limit $1";

/// All types of machines: a name each, under the id that is made of it.
pub(super) async fn machine_types(connection: &mut PgConnection) -> Result<Places, ReadError> {
    let mut places = Places::new();
    let query = sqlx::query(OF_STARTS).bind(MAX_MACHINE_TYPES.saturating_add(1)).bind(NOTHING);
    for row in &query.fetch_all(connection).await? {
        let id: Uuid = row.try_get("id")?;
        let compared = Compared { kept: row.try_get("kept")?, recomputed: row.try_get("recomputed")? };
        places.insert(format!("machine_types {id}"), compared);
    }
    bounded(places.len(), MAX_MACHINE_TYPES, "types of machines")?;
    Ok(places)
}
