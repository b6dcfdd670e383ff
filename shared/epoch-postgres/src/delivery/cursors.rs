//! Cursor rows: locking, moving and writing.
//!
//! Several processes may hold events of the same aggregates. The cursor rows of a batch are locked before any event is
//! judged, in the order of their key, so that two batches wait for each other without a deadlock. A missing row is
//! inserted first, so that it can be locked. The SQL functions are in `sql/functions`.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry};

use epoch::{
    Batch, Version,
    envelope::StreamKey,
    gate::{Cursor, ParkReason},
    store::StoreError,
};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use crate::{
    database::rows::{bigint, version},
    delivery::{error::HandlerError, generations::Generation},
};

const LOCK: &str = include_str!("sql/lock_cursors.sql");
const FOLLOW: &str = "select epoch_follow(epoch_enter($1, $6, $7), $2, $3, $4, $5)";
const MOVE: &str = "select epoch_move($1, $2, $3, $4, $5)";

/// Returns the streams of a batch in key order.
pub(crate) fn streams(events: &Batch) -> BTreeSet<(Uuid, String)> {
    events.iter().map(|event| (event.aggregate_id, event.aggregate.to_string())).collect()
}

#[derive(FromRow)]
struct CursorRow {
    aggregate: String,
    aggregate_id: Uuid,
    version: i64,
    parked: Option<String>,
}

/// Decodes the columns `version` and `parked`.
pub(crate) fn cursor(applied: i64, parked: Option<&str>) -> Result<Cursor, StoreError> {
    Ok(Cursor { version: version(applied)?, parked: parked.map(parked_from_text) })
}

/// Enters the generation and locks the cursors of these streams; missing cursors start at version 0.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    generation: &Generation,
    streams: &BTreeSet<(Uuid, String)>,
) -> Result<HashMap<StreamKey, Cursor>, HandlerError> {
    let (ids, aggregates): (Vec<Uuid>, Vec<&str>) = streams.iter().map(|(id, name)| (*id, name.as_str())).unzip();
    let query = sqlx::query_as(LOCK).bind(&*generation.subscription).bind(ids).bind(aggregates);
    let rows: Vec<CursorRow> = query.bind(generation.number).bind(generation.limit_ms).fetch_all(connection).await?;
    let mut cursors = HashMap::with_capacity(rows.len());
    for row in rows {
        let cursor = cursor(row.version, row.parked.as_deref())?;
        cursors.insert(StreamKey { aggregate: row.aggregate.into(), id: row.aggregate_id }, cursor);
    }
    Ok(cursors)
}

/// As [`lock`], for one stream.
pub(crate) async fn lock_one(
    connection: &mut PgConnection,
    generation: &Generation,
    stream: &StreamKey,
) -> Result<Cursor, HandlerError> {
    let streams = BTreeSet::from([(stream.id, stream.aggregate.to_string())]);
    Ok(lock(connection, generation, &streams).await?.get(stream).copied().unwrap_or_default())
}

/// Decodes the column `parked`, as written by [`parked_text`].
pub(crate) fn parked_from_text(text: &str) -> ParkReason {
    if text == "gap" { ParkReason::Gap } else { ParkReason::Failed }
}

fn parked_text(parked: ParkReason) -> &'static str {
    match parked {
        ParkReason::Gap => "gap",
        ParkReason::Failed => "failed",
    }
}

/// The result of [`follow`].
pub(crate) enum FollowOutcome {
    /// All events of the batch are next, and the cursors have moved past them.
    All,
    /// The events of some streams are next. The transaction must be rolled back.
    Some,
    /// The events of no stream are next; nothing has changed.
    None,
}

/// Enters the generation and moves the cursors past a batch, if all its events directly follow the applied versions.
pub(crate) async fn follow(
    connection: &mut PgConnection,
    generation: &Generation,
    events: &Batch,
) -> Result<FollowOutcome, HandlerError> {
    let Some(spans) = version_spans(events) else { return Ok(FollowOutcome::None) };
    let (mut ids, mut aggregates, mut firsts, mut lasts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for ((id, aggregate), span) in &spans {
        ids.push(*id);
        aggregates.push(*aggregate);
        firsts.push(bigint(span.first.get()));
        lasts.push(bigint(span.last.get()));
    }
    let query = sqlx::query_scalar(FOLLOW).bind(&*generation.subscription).bind(ids).bind(aggregates);
    let query = query.bind(firsts).bind(lasts).bind(generation.number).bind(generation.limit_ms);
    let moved: i64 = query.fetch_one(connection).await?;
    Ok(match usize::try_from(moved) {
        Ok(0) => FollowOutcome::None,
        Ok(moved) if moved == spans.len() => FollowOutcome::All,
        _ => FollowOutcome::Some,
    })
}

/// Returns a statement that enters the generation and moves the cursor of a batch of one stream, or fails with
/// [`is_not_next`]. Returns `None` for other batches.
///
/// The statement is sent as text together with `begin`, so it contains only names that need no quoting.
pub(crate) fn follow_next_statement(generation: &Generation, events: &Batch) -> Option<String> {
    let spans = version_spans(events)?;
    let mut spans = spans.iter();
    let (Some(((id, aggregate), span)), None) = (spans.next(), spans.next()) else { return None };
    let Generation { subscription, number, limit_ms, .. } = generation;
    let VersionSpan { first, last } = span;
    let is_plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    (is_plain(subscription) && is_plain(aggregate)).then(|| {
        format!(
            "select epoch_follow_next('{subscription}', {number}, {limit_ms}, '{id}', '{aggregate}', {first}, {last})"
        )
    })
}

/// Returns whether `epoch_follow_next` reported that the events are not next.
pub(crate) fn is_not_next(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "EP002")
}

/// The consecutive versions of one stream in a batch.
struct VersionSpan {
    first: Version,
    last: Version,
}

/// Returns the span of each stream, or `None` when the versions of a stream are not consecutive.
fn version_spans(events: &Batch) -> Option<BTreeMap<(Uuid, &str), VersionSpan>> {
    let mut spans = BTreeMap::new();
    for event in events {
        match spans.entry((event.aggregate_id, event.aggregate.as_ref())) {
            Entry::Vacant(entry) => {
                entry.insert(VersionSpan { first: event.version, last: event.version });
            }
            Entry::Occupied(mut entry) if entry.get().last.next() == event.version => {
                entry.get_mut().last = event.version
            }
            Entry::Occupied(_) => return None,
        }
    }
    Some(spans)
}

/// Writes the given cursors, which the transaction has locked.
pub(crate) async fn write<'a>(
    connection: &mut PgConnection,
    generation: &Generation,
    changed: impl Iterator<Item = (&'a StreamKey, &'a Cursor)>,
) -> Result<(), HandlerError> {
    let (mut ids, mut aggregates, mut versions, mut parked) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let in_key_order: BTreeMap<_, _> =
        changed.map(|(stream, cursor)| ((stream.id, &stream.aggregate), cursor)).collect();
    for ((id, aggregate), cursor) in in_key_order {
        ids.push(id);
        aggregates.push(aggregate.as_ref());
        versions.push(bigint(cursor.version.get()));
        parked.push(cursor.parked.map(parked_text));
    }
    if ids.is_empty() {
        return Ok(());
    }
    let query = sqlx::query(MOVE).bind(&*generation.key).bind(ids).bind(aggregates);
    query.bind(versions).bind(parked).execute(connection).await?;
    Ok(())
}
