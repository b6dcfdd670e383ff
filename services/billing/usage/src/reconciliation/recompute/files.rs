//! Files to compare: their sums and rollups as stored, and recomputed from their changes.

use std::collections::{BTreeMap, BTreeSet};

use epoch::Timestamp;
use futures::TryStreamExt;
use rating::metering::level::{LevelChange, LevelSums};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::{text_of, width_name};
use crate::{
    read_error::ReadError,
    reconciliation::difference::{Areas, Comparisons, NOTHING, RowComparison},
    rollup::bucket::Width,
    usage_row::integer,
};

/// The number of files of an organization that a step compares.
const FILES: i64 = 20;
fn area_of_file(file: Uuid) -> String {
    format!("file {file}")
}

/// Compares a sample of files that rotates with the rounds, and files with known differences.
pub(in crate::reconciliation) async fn files(
    connection: &mut PgConnection,
    organization: Uuid,
    round: i64,
    wrong: &[String],
) -> Result<Areas, ReadError> {
    let query = include_str!("files_of_round.sql");
    let mut ids: Vec<Uuid> =
        sqlx::query_scalar(query).bind(organization).bind(round).bind(FILES).fetch_all(&mut *connection).await?;
    ids.extend(wrong.iter().filter_map(|area| area.strip_prefix("file ")?.parse::<Uuid>().ok()));
    let query = "select file_id, s0::text, s1::text, first_at, last_at, lowest::text, changes, has_sums \
         from metering_files where organization_id = $1 and file_id = any($2)";
    let mut stored: BTreeMap<Uuid, (String, Option<i64>, bool)> = BTreeMap::new();
    for row in &sqlx::query(query).bind(organization).bind(&ids).fetch_all(&mut *connection).await? {
        let (first_at, last_at): (i64, i64) = (row.try_get("first_at")?, row.try_get("last_at")?);
        let (sums, lowest) =
            (text_of(LevelSums::new(integer(row, "s0")?, integer(row, "s1")?)), integer(row, "lowest")?);
        let (changes, has_sums) = (row.try_get("changes")?, row.try_get("has_sums")?);
        let text_of = format!("{sums} from {first_at} to {last_at} lowest {lowest} changes {}", count_text(changes));
        stored.insert(row.try_get("file_id")?, (text_of, changes, has_sums));
    }
    let mut sums = sums_of_files(connection, organization, &ids).await?;
    let mut recomputed = changes_of_files(connection, organization, &ids).await?;
    let mut areas = Areas::new();
    for file in ids.into_iter().collect::<BTreeSet<_>>() {
        let (stored, changes, has_sums) = stored.remove(&file).unwrap_or_else(|| (NOTHING.to_owned(), None, false));
        let of_changes = recomputed.remove(&file).unwrap_or_default();
        // A file with few changes needs no rollup, but an existing rollup must be correct.
        let mut sums = sums.remove(&file).unwrap_or_default();
        let expected = if has_sums || !sums.is_empty() { of_changes.buckets.clone() } else { BTreeMap::new() };
        let mut comparisons = Comparisons::new();
        for (key, expected) in &expected {
            let stored = sums.remove(key).map_or_else(|| NOTHING.to_owned(), text_of);
            comparisons.insert(place_of_file(file, *key), RowComparison { stored, recomputed: text_of(*expected) });
        }
        for (key, stored) in sums {
            let compared = RowComparison { stored: text_of(stored), recomputed: NOTHING.to_owned() };
            comparisons.insert(place_of_file(file, key), compared);
        }
        let recomputed = of_changes.text_of(changes.is_some());
        comparisons.insert(format!("metering_files file {file}"), RowComparison { stored, recomputed });
        areas.insert(area_of_file(file), comparisons);
    }
    Ok(areas)
}

/// The width and the bucket.
type FileKey = (i16, i64);

fn place_of_file(file: Uuid, (width, bucket): FileKey) -> String {
    format!("metering_file_sums file {file} {} {bucket}", width_name(width))
}

fn count_text(changes: Option<i64>) -> String {
    changes.map_or_else(|| "not count_text".to_owned(), |changes| changes.to_string())
}

/// Reads the stored rollups of files.
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
        let sums = LevelSums::new(integer(row, "s0")?, integer(row, "s1")?);
        all.entry(row.try_get("file_id")?).or_default().insert(key, sums);
    }
    Ok(all)
}

/// The sums of the changes of a file, added in order of time.
#[derive(Debug, Default)]
struct FileHistory {
    sums: LevelSums,
    buckets: BTreeMap<FileKey, LevelSums>,
    instants: Option<(Timestamp, Timestamp)>,
    /// The lowest level before the last instant.
    lowest: i128,
    changes: i64,
}

impl FileHistory {
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

    fn text_of(&self, with_count: bool) -> String {
        let Some((first, last)) = self.instants else { return NOTHING.to_owned() };
        let lowest = self.lowest.min(self.sums.level());
        let (sums, changes) = (text_of(self.sums), count_text(with_count.then_some(self.changes)));
        format!("{sums} from {} to {} lowest {lowest} changes {changes}", first.as_millis(), last.as_millis())
    }
}

/// Adds up the changes of files.
async fn changes_of_files(
    connection: &mut PgConnection,
    organization: Uuid,
    files: &[Uuid],
) -> Result<BTreeMap<Uuid, FileHistory>, ReadError> {
    let query = "select file_id, at, delta_bytes from storage_changes where organization_id = $1 and file_id = any($2) \
         order by file_id, at";
    let mut rows = sqlx::query(query).bind(organization).bind(files).fetch(connection);
    let mut all: BTreeMap<Uuid, FileHistory> = BTreeMap::new();
    while let Some(row) = rows.try_next().await? {
        let at = Timestamp::from_millis(row.try_get("at")?);
        let change = LevelChange { at, delta: row.try_get("delta_bytes")? };
        all.entry(row.try_get("file_id")?).or_default().add(change);
    }
    Ok(all)
}
