//! Deletes the part objects of files that are no more.
//!
//! The problem: deleting objects can't be undone and isn't part of any transaction.
//!
//! The invariant: objects are deleted only after the abort or the deletion was committed, never from the local way; done
//! again it changes nothing. While the storage is away the events wait. A part that is stored meanwhile is refused by the
//! aggregate, and deleted by whoever stored it.

use async_trait::async_trait;
use contracts::file::{AGGREGATE, FileEvent};
use epoch::{Batch, handler::EventHandler, store::StoreError};
use epoch_postgres::{HandlerError, PgTx};

use crate::storage::PartStore;

/// Deletes what is no longer needed.
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
                // A storage that is away comes back; parking the file would need somebody to release it.
                let away = |error| StoreError::Unavailable { detail: format!("storage of parts: {error}") };
                self.parts.delete_all(event.aggregate_id).await.map_err(away)?;
            }
        }
        Ok(())
    }
}
