//! Comparison of billing's copy of file and job events with the services that own them.
//!
//! A lost event, or a row of the copy that was changed manually, does not show in the rollup comparison,
//! since rollups are derived from the copy.
//!
//! Invariant: a step asks the owner of a stream for its events over HTTP, and derives the rows with the
//! functions of the handlers, up to the version of billing's cursor. It compares them with the stored rows,
//! which are read in one snapshot with the cursor. Events that billing has not applied are no difference
//! until they are overdue. Both directions are covered: a sample of the next organization's rows finds rows
//! without an event, and paging through the streams of the owner finds streams that billing has never
//! received. An owner that fails to answer is counted and reported, and is no difference. A step has one
//! request in flight and limits on time, streams and events. It holds no lock and no transaction while it
//! waits for the owner.

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
    rows::{compare_rows, stored_rows},
    state::{StepCursor, StepFindings},
    stream::Stream,
};
use crate::{
    queries::snapshot::BEGIN_SNAPSHOT,
    read_error::ReadError,
    read_models::{file_links, runs, storage_changes},
    reconciliation::{
        difference::{Comparisons, RowComparison, Side, millis, report},
        due::{OVERTAKEN, due, versions},
        step::{INTERVAL, StepOutcome},
    },
};

/// The number of streams that a step compares for each reason: a sample of an organization, a sample of the
/// owner's page, streams that billing seems to lag behind, and known differences.
const STREAMS: usize = 20;
/// The number of the owner's streams that a step compares with billing's cursors.
const PAGE: u32 = 200;
/// The maximum number of events that a step reads.
const EVENTS: u64 = 20_000;
/// The maximum duration of a step.
const STEP_LIMIT: Duration = Duration::from_secs(30);

/// Reasons a step fails.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The owner failed to answer.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// The copy cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The cursors cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for CopyError {
    fn from(error: sqlx::Error) -> Self {
        Self::Read(error.into())
    }
}

/// Lists the subscriptions that copy the events of an aggregate.
fn subscriptions(aggregate: &str) -> &'static [&'static str] {
    if aggregate == file::AGGREGATE { &[storage_changes::NAME] } else { &[runs::NAME, file_links::NAME] }
}

fn area(aggregate: &str, id: Uuid) -> String {
    format!("copy of {aggregate} {id}")
}

/// Billing's copy and the clients of the services that own the events.
#[derive(Debug, Clone)]
pub struct Copies {
    pool: PgPool,
    owners: [StreamClient; 2],
}

impl Copies {
    /// Compares the copy in `pool` with the streams of the file service and the job service.
    #[must_use]
    pub fn new(pool: PgPool, files: StreamClient, jobs: StreamClient) -> Self {
        Self { pool, owners: [files, jobs] }
    }

    /// Takes steps until `stop` is cancelled.
    ///
    /// # Errors
    /// [`CopyError`] when the database fails, to be restarted by the caller.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), CopyError> {
        for turn in [0_usize, 1].into_iter().cycle() {
            if stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none() {
                break;
            }
            let Some(owner) = self.owners.get(turn) else { break };
            let Some(findings) = stop.run_until_cancelled(self.check(owner)).await else { break };
            metrics::counter!("billing_reconciliation_checks_total", "side" => "copy", "result" => findings?.result())
                .increment(1);
            report(&self.pool, Side::Copy).await?;
        }
        Ok(())
    }

    /// Takes a step with the streams of an aggregate, of files or of jobs.
    ///
    /// # Errors
    /// [`CopyError`] when the database fails.
    pub async fn check_next(&self, aggregate: &str) -> Result<StepOutcome, CopyError> {
        let [files, jobs] = &self.owners;
        self.check(if aggregate == file::AGGREGATE { files } else { jobs }).await
    }

    async fn check(&self, owner: &StreamClient) -> Result<StepOutcome, CopyError> {
        let aggregate = owner.aggregate();
        let Some((claim, place)) = state::claim(&self.pool, aggregate, Timestamp::now(), STEP_LIMIT * 2).await? else {
            return Ok(StepOutcome::Elsewhere);
        };
        let too_slow = |_| OwnerError::TooSlow { limit_ms: STEP_LIMIT.as_millis() }.into();
        let findings =
            tokio::time::timeout(STEP_LIMIT, self.compare_streams(owner, &place)).await.map_err(too_slow).flatten();
        let now = Timestamp::now();
        match findings {
            Ok(findings) => {
                let rows = findings.areas.values().map(BTreeMap::len).sum();
                let differences = state::record_findings(&self.pool, aggregate, claim, &findings, now).await?;
                Ok(differences
                    .map_or(StepOutcome::Elsewhere, |differences| StepOutcome::Compared { rows, differences }))
            }
            Err(CopyError::Owner(error)) => {
                tracing::warn!(aggregate, %error, "stream owner failed to answer; the comparison is retried later");
                state::unreachable(&self.pool, aggregate, claim, &error, now).await?;
                Ok(StepOutcome::Unreachable)
            }
            Err(error) => {
                state::release(&self.pool, aggregate, claim).await?;
                Err(error)
            }
        }
    }

    /// Compares known differences, a sample of stored rows, and the next page of the owner.
    async fn compare_streams(&self, owner: &StreamClient, place: &StepCursor) -> Result<StepFindings, CopyError> {
        let aggregate = owner.aggregate();
        let differing = state::known_differences(&self.pool, aggregate, STREAMS).await?;
        let organization = state::next_organization(&self.pool, aggregate, place.organization).await?;
        let sample = match organization {
            Some(organization) => state::sample(&self.pool, aggregate, organization, STREAMS).await?,
            None => Vec::new(),
        };
        let page = owner.streams(place.listed.unwrap_or_default(), PAGE).await.map_err(OwnerError::from)?;
        let lagging = self.lagging(aggregate, &page.streams).await?;
        let candidates =
            differing.iter().chain(&sample).copied().chain(lagging).chain(sample_of_round(&page.streams, place.round));

        let (mut streams, mut findings, mut remaining) = (BTreeMap::new(), StepFindings::default(), EVENTS);
        for id in candidates {
            let area = area(aggregate, id);
            if streams.contains_key(&id) || findings.areas.contains_key(&area) {
                continue;
            }
            let mut stream = Stream::default();
            let whole = match stream.read_on(owner, id, remaining).await {
                Ok(whole) => whole,
                // The error concerns this stream alone and must not hold up the others.
                Err(error @ (OwnerError::VersionGap { .. } | OwnerError::Unreadable(_))) => {
                    let compared =
                        RowComparison { stored: "events without gaps".to_owned(), recomputed: error.to_string() };
                    let place = format!("stream of {aggregate} {id} as its owner has it");
                    findings.organizations.extend(stream.organization.map(|organization| (area.clone(), organization)));
                    findings.areas.insert(area, Comparisons::from([(place, compared)]));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            remaining = remaining.saturating_sub(stream.last());
            if !whole {
                findings.skipped += 1;
                continue;
            }
            stream.organizations.extend(organization.filter(|_| sample.contains(&id)));
            streams.insert(id, stream);
        }
        let compared = self.compare(owner, &mut streams, &mut findings).await;
        match compared {
            Err(CopyError::Read(ReadError::LimitExceeded { .. })) => {
                // One stream exceeds the limit; compare each separately.
                for (id, stream) in streams {
                    match self.compare(owner, &mut BTreeMap::from([(id, stream)]), &mut findings).await {
                        Err(CopyError::Read(ReadError::LimitExceeded { .. })) => findings.skipped += 1,
                        compared => compared?,
                    }
                }
            }
            compared => compared?,
        }
        findings.sampled = sample.last().copied().filter(|_| sample.len() >= STREAMS);
        findings.next =
            StepCursor { round: place.round + i64::from(page.next.is_none()), listed: page.next, organization };
        Ok(findings)
    }

    /// Lists streams with events that have been there for a while and that billing has not applied.
    async fn lagging(&self, aggregate: &str, page: &[StreamEnd]) -> Result<Vec<Uuid>, CopyError> {
        let mut connection = self.pool.acquire().await?;
        let due = Timestamp::now().as_millis().saturating_sub(millis(OVERTAKEN));
        let ids: Vec<Uuid> = page.iter().map(|end| end.id).collect();
        let mut lagging = BTreeSet::new();
        for subscription in subscriptions(aggregate) {
            let cursors = read_cursors(&mut connection, subscription, aggregate, &ids).await?;
            let lacks = |end: &&StreamEnd| {
                let cursor = cursors.get(&end.id).copied().unwrap_or_default();
                end.recorded_at <= due && cursor.version.get() < end.version && cursor.parked.is_none()
            };
            lagging.extend(page.iter().filter(lacks).map(|end| end.id));
        }
        Ok(lagging.into_iter().take(STREAMS).collect())
    }

    /// Compares the rows of streams in one snapshot.
    async fn compare(
        &self,
        owner: &StreamClient,
        streams: &mut BTreeMap<Uuid, Stream>,
        findings: &mut StepFindings,
    ) -> Result<(), CopyError> {
        let aggregate = owner.aggregate();
        let ids: Vec<Uuid> = streams.keys().copied().collect();
        let mut tx = epoch_postgres::begin(&self.pool, BEGIN_SNAPSHOT).await?;
        let mut cursors = Vec::new();
        for subscription in subscriptions(aggregate) {
            let due = due(&mut tx, subscription, aggregate).await?;
            cursors.push((*subscription, read_cursors(&mut tx, subscription, aggregate, &ids).await?, due));
        }
        let of = streams.iter().flat_map(|(id, stream)| stream.organizations.iter().map(|of| (*of, *id))).collect();
        let mut stored = stored_rows(&mut tx, aggregate, &of).await?;
        tx.commit().await?;

        for (id, stream) in streams {
            let applied = |cursors: &HashMap<Uuid, Cursor>| cursors.get(id).copied().unwrap_or_default();
            let furthest = cursors.iter().map(|(_, cursors, _)| applied(cursors).version.get()).max();
            // Billing may have applied more events since the owner answered.
            if furthest.is_some_and(|furthest| furthest > stream.last()) && !stream.read_on(owner, *id, EVENTS).await? {
                continue;
            }
            let mut comparisons = Comparisons::new();
            let mut should_be = Vec::new();
            for (subscription, cursors, due) in &cursors {
                let cursor = applied(cursors);
                let of_cursor = versions(&stream.recorded, cursor, *due);
                comparisons.insert(format!("cursors of {subscription} {aggregate} {id}"), of_cursor);
                let applied_rows = stream
                    .expected
                    .iter()
                    .filter(|made| made.subscription == *subscription && made.version <= cursor.version.get());
                should_be.extend(applied_rows.map(|made| made.row.clone()));
            }
            comparisons.extend(compare_rows(*id, stored.remove(id).unwrap_or_default(), should_be));
            let area = area(aggregate, *id);
            let organization = stream.organization.or(stream.organizations.first().copied()).unwrap_or_default();
            findings.organizations.insert(area.clone(), organization);
            findings.areas.insert(area, comparisons);
        }
        Ok(())
    }
}

/// Returns a sample of the page's streams that rotates with the rounds.
fn sample_of_round(page: &[StreamEnd], round: i64) -> Vec<Uuid> {
    let stride = page.len().div_ceil(STREAMS).max(1);
    let first = usize::try_from(round).unwrap_or(0) % stride;
    page.iter().skip(first).step_by(stride).map(|end| end.id).collect()
}

#[cfg(test)]
mod tests {
    use service_host::streams::StreamEnd;
    use uuid::Uuid;

    use super::{STREAMS, area, sample_of_round, state::of_area};

    #[test]
    fn rounds_cover_the_whole_page() {
        for length in [0, 1, 19, 20, 21, 200] {
            let end = |number| StreamEnd { id: Uuid::from_u128(number), version: 1, recorded_at: 0 };
            let page: Vec<_> = (0..length).map(end).collect();
            let mut seen = Vec::new();
            for round in 0..i64::try_from(length.div_ceil(20).max(1)).unwrap() {
                let taken = sample_of_round(&page, round);
                assert!(taken.len() <= STREAMS);
                seen.extend(taken);
            }
            seen.sort_unstable();
            assert_eq!(seen, page.iter().map(|end| end.id).collect::<Vec<_>>());
        }
    }

    #[test]
    fn area_name_identifies_the_stream() {
        let id = Uuid::now_v7();
        assert_eq!(of_area("job", &area("job", id)), Some(id));
        assert_eq!(of_area("file", &area("job", id)), None);
    }
}
