//! The handler `storage_usage`: adds the bytes of file events to the storage total of their organization.
//!
//! Each file event changes the total exactly once, although the bus delivers at least once: the command commits in the
//! transaction that advances the subscription's cursor. A batch sends one command per organization.
//!
//! The event of an unknown organization is rejected. Its file is then parked until an operator releases it, so no bytes
//! are lost or counted elsewhere. This needs a fault: the gateway accepts files only for organizations that exist.

use std::collections::BTreeMap;

use async_trait::async_trait;
use contracts::file::{AGGREGATE, FileEvent};
use epoch::{Batch, CommandContext, Envelope, Repository, handler::EventHandler};
use epoch_postgres::{HandlerError, PgStore, PgTx};
use uuid::Uuid;

use crate::domain::{Organization, OrganizationCommand};

/// Actor in the metadata of the resulting events.
const ACTOR: &str = "service:organization";

/// Event handler that sends the storage changes.
pub struct StorageUsage {
    organizations: Repository<Organization, PgStore>,
}

/// Sum of a batch for one organization.
struct UsageChange<'a> {
    /// 128 bits hold the sum of any batch.
    delta_bytes: i128,
    last: &'a Envelope,
}

impl StorageUsage {
    /// Subscription name; a key of stored cursors.
    pub const NAME: &'static str = "storage_usage";

    /// Creates the handler on the repository of organizations.
    #[must_use]
    pub fn new(organizations: Repository<Organization, PgStore>) -> Self {
        Self { organizations }
    }

    async fn apply(&self, tx: &mut PgTx, organization: Uuid, change: &UsageChange<'_>) -> Result<(), HandlerError> {
        let mut context = CommandContext::caused_by(change.last, ACTOR).for_tenant(organization);
        context.occurred_at = change.last.occurred_at;
        let delta_bytes = i64::try_from(change.delta_bytes).map_err(|_| {
            HandlerError::refused(format_args!("storage change out of range: {} bytes", change.delta_bytes))
        })?;
        let command = OrganizationCommand::ChangeStorageUsage { delta_bytes };
        tx.execute(&self.organizations, organization, &command, &context).await?;
        let total_bytes = tx.load(&self.organizations, organization).await?.state.storage_bytes();
        if total_bytes < 0 {
            tracing::warn!(%organization, total_bytes, "storage total is negative");
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
        let mut changes: BTreeMap<Uuid, UsageChange<'_>> = BTreeMap::new();
        for event in events {
            let Some((organization, bytes)) = storage_change(&event.decode()?) else { continue };
            let change = changes.entry(organization).or_insert(UsageChange { delta_bytes: 0, last: event });
            change.last = event;
            change.delta_bytes += bytes;
        }
        for (organization, change) in &changes {
            self.apply(tx, *organization, change).await?;
        }
        Ok(())
    }
}

/// Returns the organization and the number of bytes that an event adds to its total, or `None` for other events.
fn storage_change(event: &FileEvent) -> Option<(Uuid, i128)> {
    match event {
        FileEvent::FilePartUploaded(part) => Some((part.organization_id, part.bytes.into())),
        FileEvent::FileUploadAborted(aborted) => Some((aborted.organization_id, -i128::from(aborted.bytes))),
        FileEvent::FileDeleted(deleted) => Some((deleted.organization_id, -i128::from(deleted.bytes))),
        FileEvent::FileUploadStarted(_) | FileEvent::FileUploadCompleted(_) => None,
    }
}
