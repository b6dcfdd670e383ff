//! Cursor rows: locked, judged, moved.
//!
//! The problem: several processes may hold events of the same aggregates at the same time.
//!
//! The invariant: a batch's cursor rows are locked before anything is judged, in the order of their key, so that two
//! batches wait for each other but never in a circle; a row that isn't there is made first, so that it can be locked. The
//! SQL functions that do it are in `migrations/0002_delivery.sql`.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry};

use epoch::{
    Batch, Version,
    envelope::StreamKey,
    gate::{Cursor, Parked},
};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    database::rows::{count, number},
    delivery::generations::Generation,
    delivery::handler::HandlerError,
};

const LOCK: &str = "select c.aggregate, c.aggregate_id, c.version, c.parked \
     from epoch_enter($1, $4, $5) as key, lateral epoch_lock(key, $2, $3) c";
const FOLLOW: &str = "select epoch_follow(epoch_enter($1, $6, $7), $2, $3, $4, $5)";
const MOVE: &str = "select epoch_move($1, $2, $3, $4, $5)";

/// The aggregates of a batch, each once, in the order of the key.
pub(crate) fn streams(events: &Batch) -> BTreeSet<(Uuid, String)> {
    events.iter().map(|event| (event.aggregate_id, event.aggregate.to_string())).collect()
}

/// Locks the cursors of these aggregates; those that weren't there are at version 0.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    generation: &Generation,
    streams: &BTreeSet<(Uuid, String)>,
) -> Result<HashMap<StreamKey, Cursor>, HandlerError> {
    let (ids, aggregates): (Vec<Uuid>, Vec<&str>) = streams.iter().map(|(id, name)| (*id, name.as_str())).unzip();
    let query = sqlx::query(LOCK).bind(&*generation.subscription).bind(ids).bind(aggregates);
    let rows = query.bind(generation.number).bind(generation.limit_ms).fetch_all(connection).await?;
    rows.iter().map(cursor).collect()
}

fn cursor(row: &PgRow) -> Result<(StreamKey, Cursor), HandlerError> {
    let (aggregate, id): (String, Uuid) = (row.try_get(0)?, row.try_get(1)?);
    let (version, parked): (i64, Option<String>) = (row.try_get(2)?, row.try_get(3)?);
    let parked = parked.as_deref().map(self::parked);
    Ok((StreamKey { aggregate: aggregate.into(), id }, Cursor { version: Version::new(count(version)?), parked }))
}

/// Why a cursor is parked, as [`reason`] wrote it.
pub(crate) fn parked(reason: &str) -> Parked {
    if reason == "gap" { Parked::Gap } else { Parked::Failed }
}

/// What became of [`follow`].
pub(crate) enum Followed {
    /// All events of the batch are next; the cursors have moved past them.
    All,
    /// Those of some streams are; the transaction can't be used.
    Some,
    /// Those of no stream are; nothing has changed.
    None,
}

/// Moves the cursors past a batch whose events all follow on what was applied.
pub(crate) async fn follow(
    connection: &mut PgConnection,
    generation: &Generation,
    events: &Batch,
) -> Result<Followed, HandlerError> {
    let Some(spans) = spans(events) else { return Ok(Followed::None) };
    let (mut ids, mut aggregates, mut firsts, mut lasts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for ((id, aggregate), (first, last)) in &spans {
        ids.push(*id);
        aggregates.push(*aggregate);
        firsts.push(number(first.get()));
        lasts.push(number(last.get()));
    }
    let query = sqlx::query_scalar(FOLLOW).bind(&*generation.subscription).bind(ids).bind(aggregates);
    let query = query.bind(firsts).bind(lasts).bind(generation.number).bind(generation.limit_ms);
    let moved: i64 = query.fetch_one(connection).await?;
    Ok(match usize::try_from(moved) {
        Ok(0) => Followed::None,
        Ok(moved) if moved == spans.len() => Followed::All,
        _ => Followed::Some,
    })
}

/// A statement that moves the cursor of a batch of one stream, or fails with [`is_not_next`]; `None` for other batches. It is text,
/// to be sent along with `begin`, and has only names in it that need no quoting.
pub(crate) fn follow_next(generation: &Generation, events: &Batch) -> Option<String> {
    let spans = spans(events)?;
    let mut spans = spans.iter();
    let (Some(((id, aggregate), (first, last))), None) = (spans.next(), spans.next()) else { return None };
    let Generation { subscription, number, limit_ms, .. } = generation;
    let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    (plain(subscription) && plain(aggregate)).then(|| {
        format!(
            "select epoch_follow_next('{subscription}', {number}, {limit_ms}, '{id}', '{aggregate}', {first}, {last})"
        )
    })
}

/// Whether [`follow_next`] said that the events are not next.
pub(crate) fn is_not_next(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "EP002")
}

type Spans<'a> = BTreeMap<(Uuid, &'a str), (Version, Version)>;

/// The first and last version of each stream of a batch; `None` when a stream's events don't follow each other in it.
fn spans(events: &Batch) -> Option<Spans<'_>> {
    let mut spans = Spans::new();
    for event in events {
        match spans.entry((event.aggregate_id, event.aggregate.as_ref())) {
            Entry::Vacant(entry) => {
                entry.insert((event.version, event.version));
            }
            Entry::Occupied(mut entry) if entry.get().1.next() == event.version => entry.get_mut().1 = event.version,
            Entry::Occupied(_) => return None,
        }
    }
    Some(spans)
}

/// Writes cursors that have moved.
pub(crate) async fn advance<'a>(
    connection: &mut PgConnection,
    generation: &Generation,
    moved: impl Iterator<Item = (&'a StreamKey, &'a Cursor)>,
) -> Result<(), HandlerError> {
    let (mut ids, mut aggregates, mut versions, mut parked) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let moved: BTreeMap<_, _> =
        moved.map(|(stream, cursor)| ((stream.id, &stream.aggregate), (stream, cursor))).collect();
    for (stream, cursor) in moved.into_values() {
        ids.push(stream.id);
        aggregates.push(stream.aggregate.as_ref());
        versions.push(number(cursor.version.get()));
        parked.push(cursor.parked.map(reason));
    }
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query(MOVE)
        .bind(&*generation.key)
        .bind(ids)
        .bind(aggregates)
        .bind(versions)
        .bind(parked)
        .execute(connection)
        .await?;
    Ok(())
}

pub(crate) fn reason(parked: Parked) -> &'static str {
    match parked {
        Parked::Gap => "gap",
        Parked::Failed => "failed",
    }
}
