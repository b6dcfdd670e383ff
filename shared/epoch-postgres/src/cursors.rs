//! Cursor rows: locked, judged, moved.
//!
//! The problem: several processes may hold events of the same aggregates at the same time.
//!
//! The invariant: a batch's cursor rows are locked before anything is judged, in the order of their key, so that two
//! batches wait for each other but never in a circle; a row that isn't there is made first, so that it can be locked.

use std::collections::{BTreeSet, HashMap};

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
