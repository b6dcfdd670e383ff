//! The stream of an aggregate as its owner returns it.

use std::collections::BTreeSet;

use service_host::{
    peer::PeerError,
    streams::{MalformedEvent, StreamClient},
};
use uuid::Uuid;

use crate::reconciliation::copy::rows::{ExpectedRow, expected_rows};

/// Errors of reading a stream from its owner.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// The owner does not answer, or rejects the request.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The response is malformed.
    #[error(transparent)]
    Unreadable(#[from] MalformedEvent),
    /// The response skips versions.
    #[error("stream of {aggregate} {id} returned version {version} after version {after}")]
    VersionGap {
        aggregate: &'static str,
        id: Uuid,
        /// The version in the response.
        version: u64,
        /// The last version before it.
        after: u64,
    },
    /// The owner is too slow.
    #[error("the owner took longer than {limit_ms} ms")]
    TooSlow {
        /// The maximum duration of a step.
        limit_ms: u128,
    },
}

/// The data derived from the events of a stream.
#[derive(Debug, Clone, Default)]
pub(super) struct Stream {
    /// The rows that the events create.
    pub(super) expected: Vec<ExpectedRow>,
    /// When each event was recorded, starting with version 1.
    pub(super) recorded: Vec<i64>,
    /// The organizations of the events, and those in which billing has rows of the stream.
    pub(super) organizations: BTreeSet<Uuid>,
    /// The organization of the first event.
    pub(super) organization: Option<Uuid>,
}

impl Stream {
    /// Returns the last version.
    pub(super) fn last(&self) -> u64 {
        self.recorded.len() as u64
    }

    /// Reads the events after the last version. Returns `false` if the stream has more than `max_events` events and
    /// was not read completely.
    pub(super) async fn read_on(
        &mut self,
        owner: &StreamClient,
        id: Uuid,
        max_events: u64,
    ) -> Result<bool, OwnerError> {
        loop {
            let page = owner.events(id, self.last()).await?;
            for event in page.events {
                let (version, after) = (event.version, self.last());
                if version != after.saturating_add(1) {
                    return Err(OwnerError::VersionGap { aggregate: owner.aggregate(), id, version, after });
                }
                let event = event.envelope(owner.aggregate(), id)?;
                self.recorded.push(event.recorded_at.as_millis());
                let expected = expected_rows(&event);
                let organizations =
                    event.metadata.tenant.into_iter().chain(expected.iter().map(|expected| expected.organization));
                self.organizations.extend(organizations);
                self.organization = self.organization.or(expected.first().map(|expected| expected.organization));
                self.expected.extend(expected);
            }
            let Some(next) = page.next else { return Ok(true) };
            if self.last() >= max_events {
                return Ok(false);
            }
            if next != self.last() {
                return Err(OwnerError::VersionGap {
                    aggregate: owner.aggregate(),
                    id,
                    version: next,
                    after: self.last(),
                });
            }
        }
    }
}
