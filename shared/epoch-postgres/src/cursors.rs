//! Cursor rows: locked, judged, moved.
//!
//! The problem: several processes may hold events of the same aggregates at the same time.
//!
//! The invariant: a batch's cursor rows are locked before anything is judged, in the order of their key, so that two
//! batches wait for each other but never in a circle; a row that isn't there is made first, so that it can be locked.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry};

use epoch::{
    Batch, Version,
    envelope::StreamKey,
    gate::{Cursor, Parked},
};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    handler::HandlerError,
    rows::{count, number},
};

/// Makes the rows that aren't there, then locks those that were, each in the order of the key. Parts of a union run one after
/// the other; both see the table as it was before the statement, so no row comes twice.
const LOCK: &str = "with keys as materialized ( \
       select aggregate_id, aggregate from unnest($2::uuid[], $3::text[]) as k (aggregate_id, aggregate) \
     ), made as ( \
       insert into cursors (subscription, aggregate_id, aggregate, version) \
       select $1, aggregate_id, aggregate, 0 from keys order by aggregate_id, aggregate on conflict do nothing \
       returning aggregate, aggregate_id, version, parked \
     ), locked as ( \
       select c.aggregate, c.aggregate_id, c.version, c.parked from keys k \
       join cursors c on c.aggregate_id = k.aggregate_id and c.aggregate = k.aggregate \
       where c.subscription = $1 order by c.aggregate_id, c.aggregate for update of c \
     ) select * from made union all select * from locked";

/// Moves the cursors of streams whose events follow directly, and says how many did: the usual case in one statement.
const FOLLOW: &str = "with keys as materialized ( \
       select * from unnest($2::uuid[], $3::text[], $4::bigint[], $5::bigint[]) as k (aggregate_id, aggregate, first, last) \
       order by aggregate_id, aggregate \
     ), made as ( \
       insert into cursors (subscription, aggregate_id, aggregate, version) \
       select $1, aggregate_id, aggregate, last from keys where first = 1 on conflict do nothing returning 1 \
     ), moved as ( \
       update cursors c set version = k.last from keys k \
       where c.subscription = $1 and c.aggregate_id = k.aggregate_id and c.aggregate = k.aggregate \
         and k.first > 1 and c.version = k.first - 1 and c.parked is null returning 1 \
     ) select (select count(*) from made) + (select count(*) from moved)";

const MOVE: &str = "update cursors c set version = k.version, parked = k.parked \
     from unnest($2::uuid[], $3::text[], $4::bigint[], $5::text[]) as k (aggregate_id, aggregate, version, parked) \
     where c.subscription = $1 and c.aggregate_id = k.aggregate_id and c.aggregate = k.aggregate";

/// The aggregates of a batch, each once, in the order of the key.
pub(crate) fn streams(events: &Batch) -> BTreeSet<(Uuid, String)> {
    events.iter().map(|event| (event.aggregate_id, event.aggregate.to_string())).collect()
}

/// Locks the cursors of these aggregates; those that weren't there are at version 0.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    subscription: &str,
    streams: &BTreeSet<(Uuid, String)>,
) -> Result<HashMap<StreamKey, Cursor>, HandlerError> {
    let mut locked: HashMap<StreamKey, Cursor> = HashMap::with_capacity(streams.len());
    // A second time only when another process made one of the rows during the first statement.
    while locked.len() < streams.len() {
        let key = |(id, name): &(Uuid, String)| StreamKey { aggregate: name.clone().into(), id: *id };
        let missing = streams.iter().filter(|stream| !locked.contains_key(&key(stream)));
        let (ids, aggregates): (Vec<Uuid>, Vec<&str>) = missing.map(|(id, name)| (*id, name.as_str())).unzip();
        let rows = sqlx::query(LOCK).bind(subscription).bind(ids).bind(aggregates).fetch_all(&mut *connection).await?;
        for row in &rows {
            let (stream, cursor) = cursor(row)?;
            locked.insert(stream, cursor);
        }
    }
    Ok(locked)
}

fn cursor(row: &PgRow) -> Result<(StreamKey, Cursor), HandlerError> {
    let (aggregate, id): (String, Uuid) = (row.try_get(0)?, row.try_get(1)?);
    let (version, parked): (i64, Option<String>) = (row.try_get(2)?, row.try_get(3)?);
    let parked = parked.map(|reason| if reason == "gap" { Parked::Gap } else { Parked::Failed });
    Ok((StreamKey { aggregate: aggregate.into(), id }, Cursor { version: Version::new(count(version)?), parked }))
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
    subscription: &str,
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
    let query = sqlx::query_scalar(FOLLOW).bind(subscription).bind(ids).bind(aggregates).bind(firsts).bind(lasts);
    let moved: i64 = query.fetch_one(connection).await?;
    Ok(match usize::try_from(moved) {
        Ok(0) => Followed::None,
        Ok(moved) if moved == spans.len() => Followed::All,
        _ => Followed::Some,
    })
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
    subscription: &str,
    moved: impl Iterator<Item = (&'a StreamKey, &'a Cursor)>,
) -> Result<(), HandlerError> {
    let (mut ids, mut aggregates, mut versions, mut parked) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (stream, cursor) in moved {
        ids.push(stream.id);
        aggregates.push(stream.aggregate.as_ref());
        versions.push(number(cursor.version.get()));
        parked.push(cursor.parked.map(reason));
    }
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query(MOVE)
        .bind(subscription)
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
