//! The handler `part_cleanup`: deletes the part objects of aborted and deleted files.
//!
//! Deleting an object cannot be undone and is not part of a transaction. The handler therefore runs only after the
//! commit of the abort or deletion, never on the fast path, and is idempotent. Its events wait while the storage is
//! unavailable. A part that an upload stores in the meantime is rejected by the aggregate and deleted by that upload.

use async_trait::async_trait;
use contracts::file::{AGGREGATE, FileEvent};
use epoch::{Batch, handler::EventHandler, store::StoreError};
use epoch_postgres::{HandlerError, PgTx};

use crate::storage::PartStore;

/// Event handler that deletes part objects.
pub(crate) struct PartCleanup {
    parts: PartStore,
}

impl PartCleanup {
    pub(crate) fn new(parts: PartStore) -> Self {
        Self { parts }
    }
}

#[async_trait]
impl EventHandler<PgTx> for PartCleanup {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        "part_cleanup"
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &[AGGREGATE]
    }

    fn allows_fast_path(&self) -> bool {
        false
    }

    async fn handle(&self, _tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        for event in events {
            if let FileEvent::FileUploadAborted(_) | FileEvent::FileDeleted(_) = event.decode()? {
                // An outage of the storage is transient. A permanent error would park the file until an operator
                // releases it.
                let unavailable = |error| StoreError::Unavailable { detail: format!("part storage: {error}") };
                self.parts.delete_all(event.aggregate_id).await.map_err(unavailable)?;
            }
        }
        Ok(())
    }
}
