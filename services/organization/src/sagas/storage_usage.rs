//! The saga `storage_usage`: what files store is counted in their organization.
//!
//! The problem: the file service says what was stored and freed, many times and in many parts, over a bus that delivers at
//! least once; an organization's total must be right to the byte.
//!
//! The invariant: each event of a file changes its organization's total by its bytes, exactly once. The command commits
//! with the cursor that says the event was taken. A batch makes one command an organization.
//!
//! An event of an organization that doesn't exist is refused, so its file is parked until somebody releases it: nothing is
//! lost, and nothing is counted for nobody. It doesn't happen by itself: files belong to organizations that were
//! authenticated, hence created, before.

use std::collections::BTreeMap;

use async_trait::async_trait;
use contracts::file::{AGGREGATE, FileEvent};
use epoch::{Batch, CommandContext, Envelope, Repository, handler::EventHandler};
use epoch_postgres::{HandlerError, PgStore, PgTx};
use uuid::Uuid;

use crate::domain::{Organization, OrganizationCommand};

/// Who changed the total, as its events remember.
const ACTOR: &str = "service:organization";

/// The saga `storage_usage`.
pub struct StorageUsage {
    organizations: Repository<Organization, PgStore>,
}

/// What a batch changes for one organization.
struct Change<'a> {
    /// Wide enough for any sum of a batch.
    delta_bytes: i128,
    last: &'a Envelope,
}

impl StorageUsage {
    /// The subscription's name.
    pub const NAME: &'static str = "storage_usage";

    /// The saga that commands these organizations.
    #[must_use]
    pub fn new(organizations: Repository<Organization, PgStore>) -> Self {
        Self { organizations }
    }

    async fn change(&self, tx: &mut PgTx, organization: Uuid, change: &Change<'_>) -> Result<(), HandlerError> {
        let mut context = CommandContext::caused_by(change.last, ACTOR).for_tenant(organization);
        context.occurred_at = change.last.occurred_at;
        let delta_bytes = i64::try_from(change.delta_bytes)
            .map_err(|_| HandlerError::refused(format_args!("{} bytes are out of range", change.delta_bytes)))?;
        let command = OrganizationCommand::ChangeStorageUsage { delta_bytes };
        tx.execute(&self.organizations, organization, &command, &context).await?;
        let total_bytes = tx.load(&self.organizations, organization).await?.state.storage_bytes();
        if total_bytes < 0 {
            tracing::warn!(%organization, total_bytes, "organization stores less than nothing");
        }
        Ok(())
    }
}

#[async_trait]
impl EventHandler<PgTx> for StorageUsage {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &[AGGREGATE]
    }

    async fn handle(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        let mut changes: BTreeMap<Uuid, Change<'_>> = BTreeMap::new();
        for event in events {
            let Some((organization, bytes)) = stored(&event.decode()?) else { continue };
            let change = changes.entry(organization).or_insert(Change { delta_bytes: 0, last: event });
            change.last = event;
            change.delta_bytes += bytes;
        }
        for (organization, change) in &changes {
            self.change(tx, *organization, change).await?;
        }
        Ok(())
    }
}

/// By how many bytes an event changes what an organization stores.
fn stored(event: &FileEvent) -> Option<(Uuid, i128)> {
    match event {
        FileEvent::FilePartUploaded(part) => Some((part.organization_id, part.bytes.into())),
        FileEvent::FileUploadAborted(aborted) => Some((aborted.organization_id, -i128::from(aborted.bytes))),
        FileEvent::FileDeleted(deleted) => Some((deleted.organization_id, -i128::from(deleted.bytes))),
        FileEvent::FileUploadStarted(_) | FileEvent::FileUploadCompleted(_) => None,
    }
}
