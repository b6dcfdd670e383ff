//! Whether billing's copy of other services' events is what those services have.
//!
//! The problem: an event that was lost on its way, or a row of the copy that somebody changed, is in no sum that billing could compare:
//! the sums are made of the copy.
//!
//! The invariant: the owner of a stream is asked, over HTTP, what it has, and what the handlers' own functions make of it up to the
//! version that billing's cursor is at is compared with the rows, read in one snapshot with the cursor. What billing hasn't had yet is
//! no difference, unless it must have come by now. Both ways in are looked at: a sample of what billing has of the next
//! organization, so that a row that no event stands for shows, and the owner's streams one page after the other, so that one that
//! billing never heard of shows. An owner that gives no answer is counted and shown, and is no difference. A step has one request under
//! way at a time, and bounds on time, streams and events; no lock is held and no transaction is open while the owner is asked.

mod rows;
mod state;
mod stream;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use contracts::file;
use epoch::{Timestamp, gate::Cursor, store::StoreError};
use epoch_postgres::read_cursors;
use service_host::streams::{StreamClient, StreamEnd};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use self::stream::OwnerError;
use self::{
    rows::{compared, kept},
    state::{Looked, Place},
    stream::Stream,
};
use crate::{
    queries::snapshot::AT_ONE_MOMENT,
    read_error::ReadError,
    read_models::{file_links, runs, storage_changes},
    reconciliation::{
        difference::{Compared, Places, Side, millis, report},
        due::{OVERTAKEN, due, versions},
        step::{INTERVAL, Look},
    },
};

/// How many streams are looked at in a step for each reason: a sample of an organization's, a sample of the owner's page, those that
/// billing seems to be behind with, those that were wrong.
const STREAMS: usize = 20;
/// How many of the owner's streams are compared with billing's cursors in a step.
const PAGE: u32 = 200;
/// The most events that are read in a step.
const EVENTS: u64 = 20_000;
/// How long a step may take.
const STEP_LIMIT: Duration = Duration::from_secs(30);

/// Why a step could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The owner can't be had.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// The copy can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The cursors can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for CopyError {
    fn from(error: sqlx::Error) -> Self {
        Self::Read(error.into())
    }
}

/// The subscriptions that copy an aggregate's events.
fn subscriptions(aggregate: &str) -> &'static [&'static str] {
    if aggregate == file::AGGREGATE { &[storage_changes::NAME] } else { &[runs::NAME, file_links::NAME] }
}

fn area(aggregate: &str, id: Uuid) -> String {
    format!("copy of {aggregate} {id}")
}

/// Billing's copy, and who has what it is a copy of.
#[derive(Debug, Clone)]
pub struct Copies {
    pool: PgPool,
    owners: [StreamClient; 2],
}

impl Copies {
    /// The copy in `pool` of what the services of files and of jobs have.
    #[must_use]
    pub fn new(pool: PgPool, files: StreamClient, jobs: StreamClient) -> Self {
        Self { pool, owners: [files, jobs] }
    }

    /// Checks until it is told to stop.
    ///
    /// # Errors
    /// [`CopyError`] when the database can't be used, to be started again.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), CopyError> {
        for turn in [0_usize, 1].into_iter().cycle() {
            if stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none() {
                break;
            }
            let Some(owner) = self.owners.get(turn) else { break };
            let Some(looked) = stop.run_until_cancelled(self.check(owner)).await else { break };
            metrics::counter!("billing_reconciliation_checks_total", "side" => "copy", "result" => looked?.result())
                .increment(1);
            report(&self.pool, Side::Copy).await?;
        }
        Ok(())
    }

    /// Takes a step with files, if `aggregate` is theirs, or with jobs.
    ///
    /// # Errors
    /// [`CopyError`] when the database can't be used.
    pub async fn check_next(&self, aggregate: &str) -> Result<Look, CopyError> {
        let [files, jobs] = &self.owners;
        self.check(if aggregate == file::AGGREGATE { files } else { jobs }).await
    }

    async fn check(&self, owner: &StreamClient) -> Result<Look, CopyError> {
        let aggregate = owner.aggregate();
        let Some((claim, place)) = state::claim(&self.pool, aggregate, Timestamp::now(), STEP_LIMIT * 2).await? else {
            return Ok(Look::Elsewhere);
        };
        let too_slow = |_| OwnerError::TooSlow { limit_ms: STEP_LIMIT.as_millis() }.into();
        let looked = tokio::time::timeout(STEP_LIMIT, self.look(owner, &place)).await.map_err(too_slow).flatten();
        let now = Timestamp::now();
        match looked {
            Ok(looked) => {
                let rows = looked.areas.values().map(BTreeMap::len).sum();
                let differences = state::looked(&self.pool, aggregate, claim, &looked, now).await?;
                Ok(differences.map_or(Look::Elsewhere, |differences| Look::Compared { rows, differences }))
            }
            Err(CopyError::Owner(error)) => {
                tracing::warn!(aggregate, %error, "the owner of what billing has a copy of gives no answer");
                state::unreachable(&self.pool, aggregate, claim, &error, now).await?;
                Ok(Look::Unreachable)
            }
            Err(error) => {
                state::release(&self.pool, aggregate, claim).await?;
                Err(error)
            }
        }
    }

    /// Looks at what was wrong, at a sample of what is kept, and at the owner's next page.
    async fn look(&self, owner: &StreamClient, place: &Place) -> Result<Looked, CopyError> {
        let aggregate = owner.aggregate();
        let wrong = state::wrong(&self.pool, aggregate, STREAMS).await?;
        let organization = state::next_organization(&self.pool, aggregate, place.organization).await?;
        let sample = match organization {
            Some(organization) => state::sample(&self.pool, aggregate, organization, STREAMS).await?,
            None => Vec::new(),
        };
        let page = owner.streams(place.listed.unwrap_or_default(), PAGE).await.map_err(OwnerError::from)?;
        let behind = self.behind(aggregate, &page.streams).await?;
        let wanted = wrong.iter().chain(&sample).copied().chain(behind).chain(in_turn(&page.streams, place.round));

        let (mut streams, mut looked, mut left) = (BTreeMap::new(), Looked::default(), EVENTS);
        for id in wanted {
            let area = area(aggregate, id);
            if streams.contains_key(&id) || looked.areas.contains_key(&area) {
                continue;
            }
            let mut stream = Stream::default();
            let whole = match stream.read_on(owner, id, left).await {
                Ok(whole) => whole,
                // That is about this stream alone, and must not hold up the others.
                Err(error @ (OwnerError::Hole { .. } | OwnerError::Unreadable(_))) => {
                    let compared = Compared { kept: "events without holes".to_owned(), recomputed: error.to_string() };
                    let place = format!("stream of {aggregate} {id} as its owner has it");
                    looked.organizations.extend(stream.organization.map(|organization| (area.clone(), organization)));
                    looked.areas.insert(area, Places::from([(place, compared)]));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            left = left.saturating_sub(stream.last());
            if !whole {
                looked.skipped += 1;
                continue;
            }
            stream.organizations.extend(organization.filter(|_| sample.contains(&id)));
            streams.insert(id, stream);
        }
        let compared = self.compare(owner, &mut streams, &mut looked).await;
        match compared {
            Err(CopyError::Read(ReadError::TooMuch { .. })) => {
                // One of them is, and the others are compared all the same.
                for (id, stream) in streams {
                    match self.compare(owner, &mut BTreeMap::from([(id, stream)]), &mut looked).await {
                        Err(CopyError::Read(ReadError::TooMuch { .. })) => looked.skipped += 1,
                        compared => compared?,
                    }
                }
            }
            compared => compared?,
        }
        looked.sampled = sample.last().copied().filter(|_| sample.len() >= STREAMS);
        looked.next = Place { round: place.round + i64::from(page.next.is_none()), listed: page.next, organization };
        Ok(looked)
    }

    /// Streams of which billing hasn't had all that has been there for a while.
    async fn behind(&self, aggregate: &str, page: &[StreamEnd]) -> Result<Vec<Uuid>, CopyError> {
        let mut connection = self.pool.acquire().await?;
        let due = Timestamp::now().as_millis().saturating_sub(millis(OVERTAKEN));
        let ids: Vec<Uuid> = page.iter().map(|end| end.id).collect();
        let mut behind = BTreeSet::new();
        for subscription in subscriptions(aggregate) {
            let cursors = read_cursors(&mut connection, subscription, aggregate, &ids).await?;
            let lacks = |end: &&StreamEnd| {
                let cursor = cursors.get(&end.id).copied().unwrap_or_default();
                end.recorded_at <= due && cursor.version.get() < end.version && cursor.parked.is_none()
            };
            behind.extend(page.iter().filter(lacks).map(|end| end.id));
        }
        Ok(behind.into_iter().take(STREAMS).collect())
    }

    /// Compares the rows of streams, as they are in one snapshot.
    async fn compare(
        &self,
        owner: &StreamClient,
        streams: &mut BTreeMap<Uuid, Stream>,
        looked: &mut Looked,
    ) -> Result<(), CopyError> {
        let aggregate = owner.aggregate();
        let ids: Vec<Uuid> = streams.keys().copied().collect();
        let mut tx = epoch_postgres::begin(&self.pool, AT_ONE_MOMENT).await?;
        let mut cursors = Vec::new();
        for subscription in subscriptions(aggregate) {
            let due = due(&mut tx, subscription, aggregate).await?;
            cursors.push((*subscription, read_cursors(&mut tx, subscription, aggregate, &ids).await?, due));
        }
        let of = streams.iter().flat_map(|(id, stream)| stream.organizations.iter().map(|of| (*of, *id))).collect();
        let mut kept = kept(&mut tx, aggregate, &of).await?;
        tx.commit().await?;

        for (id, stream) in streams {
            let applied = |cursors: &HashMap<Uuid, Cursor>| cursors.get(id).copied().unwrap_or_default();
            let furthest = cursors.iter().map(|(_, cursors, _)| applied(cursors).version.get()).max();
            // Billing may have had more since the owner was asked.
            if furthest.is_some_and(|furthest| furthest > stream.last()) && !stream.read_on(owner, *id, EVENTS).await? {
                continue;
            }
            let mut places = Places::new();
            let mut should_be = Vec::new();
            for (subscription, cursors, due) in &cursors {
                let cursor = applied(cursors);
                let of_cursor = versions(&stream.recorded, cursor, *due);
                places.insert(format!("cursors of {subscription} {aggregate} {id}"), of_cursor);
                let had = stream
                    .made
                    .iter()
                    .filter(|made| made.subscription == *subscription && made.version <= cursor.version.get());
                should_be.extend(had.map(|made| made.row.clone()));
            }
            places.extend(compared(*id, kept.remove(id).unwrap_or_default(), should_be));
            let area = area(aggregate, *id);
            let organization = stream.organization.or(stream.organizations.first().copied()).unwrap_or_default();
            looked.organizations.insert(area.clone(), organization);
            looked.areas.insert(area, places);
        }
        Ok(())
    }
}

/// Some of a page's streams, others in each round.
fn in_turn(page: &[StreamEnd], round: i64) -> Vec<Uuid> {
    let stride = page.len().div_ceil(STREAMS).max(1);
    let first = usize::try_from(round).unwrap_or(0) % stride;
    page.iter().skip(first).step_by(stride).map(|end| end.id).collect()
}

#[cfg(test)]
mod tests {
    use service_host::streams::StreamEnd;
    use uuid::Uuid;

    use super::{STREAMS, area, in_turn, state::of_area};

    #[test]
    fn rounds_take_all_of_a_page_in_turn() {
        for length in [0, 1, 19, 20, 21, 200] {
            let end = |number| StreamEnd { id: Uuid::from_u128(number), version: 1, recorded_at: 0 };
            let page: Vec<_> = (0..length).map(end).collect();
            let mut seen = Vec::new();
            for round in 0..i64::try_from(length.div_ceil(20).max(1)).unwrap() {
                let taken = in_turn(&page, round);
                assert!(taken.len() <= STREAMS);
                seen.extend(taken);
            }
            seen.sort_unstable();
            assert_eq!(seen, page.iter().map(|end| end.id).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_area_is_found_by_its_name() {
        let id = Uuid::now_v7();
        assert_eq!(of_area("job", &area("job", id)), Some(id));
        assert_eq!(of_area("file", &area("job", id)), None);
    }
}
