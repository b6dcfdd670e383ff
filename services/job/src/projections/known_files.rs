//! What this service knows of the file service's files.
//!
//! The problem: a job may only use complete files of its own organization, and asking the file service for each would
//! make creating jobs as slow and as available as that service.
//!
//! The invariant: a row is what the file's events up to now say; nothing else decides whether a file can be used.

use std::collections::HashMap;

use async_trait::async_trait;
use contracts::file::{AGGREGATE, FileEvent};
use epoch::{Batch, handler::EventHandler};
use epoch_postgres::{HandlerError, PgTx};
use sqlx::{FromRow, PgExecutor};
use uuid::Uuid;

const STARTED: &str = include_str!("sql/insert_known_files.sql");
const CHANGED: &str = include_str!("sql/update_known_files.sql");
const STATUS: &str = include_str!("sql/find_known_file_statuses.sql");

/// The projection.
pub(crate) struct KnownFiles;

#[derive(Default)]
struct Started {
    ids: Vec<Uuid>,
    organizations: Vec<Uuid>,
    names: Vec<String>,
    bytes: Vec<i64>,
}

#[async_trait]
impl EventHandler<PgTx> for KnownFiles {
    type Error = HandlerError;

    fn name(&self) -> &'static str {
        "known_files"
    }

    fn aggregates(&self) -> &'static [&'static str] {
        &[AGGREGATE]
    }

    fn tables(&self) -> &'static [&'static str] {
        &["known_files"]
    }

    async fn handle(&self, tx: &mut PgTx, events: &Batch) -> Result<(), HandlerError> {
        let mut started = Started::default();
        // Each file's last status in this batch, and its size where that is certain.
        let mut changed: HashMap<Uuid, (&'static str, Option<i64>)> = HashMap::new();
        for event in events {
            let id = event.aggregate_id;
            match event.decode()? {
                FileEvent::FileUploadStarted(event) => {
                    started.ids.push(id);
                    started.organizations.push(event.organization_id);
                    started.names.push(event.name);
                    started.bytes.push(event.declared_bytes);
                }
                FileEvent::FilePartUploaded(_) => {}
                FileEvent::FileUploadCompleted(event) => {
                    changed.insert(id, ("completed", Some(event.bytes)));
                }
                FileEvent::FileUploadAborted(_) => {
                    changed.insert(id, ("aborted", None));
                }
                FileEvent::FileDeleted(event) => {
                    changed.insert(id, ("deleted", Some(event.bytes)));
                }
            }
        }
        if !started.ids.is_empty() {
            let Started { ids, organizations, names, bytes } = started;
            let query = sqlx::query(STARTED).bind(ids).bind(organizations).bind(names).bind(bytes);
            query.execute(tx.connection()).await?;
        }
        if !changed.is_empty() {
            let (mut ids, mut statuses, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
            for (id, (status, size)) in changed {
                ids.push(id);
                statuses.push(status);
                bytes.push(size);
            }
            sqlx::query(CHANGED).bind(ids).bind(statuses).bind(bytes).execute(tx.connection()).await?;
        }
        Ok(())
    }
}

#[derive(FromRow)]
struct Status {
    id: Uuid,
    status: String,
}

/// Files that an organization's job asks for and can't have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Unusable {
    /// Not known, or another organization's, or not complete: this may change.
    pub(crate) not_yet: Vec<Uuid>,
    /// Deleted, or given up: this will not change.
    pub(crate) gone: Vec<Uuid>,
}

/// Those of `ids` that aren't complete files of `organization`.
pub(crate) async fn unusable(
    executor: impl PgExecutor<'_>,
    organization: Uuid,
    ids: &[Uuid],
) -> Result<Unusable, sqlx::Error> {
    let known: Vec<Status> = sqlx::query_as(STATUS).bind(organization).bind(ids).fetch_all(executor).await?;
    let known: HashMap<Uuid, String> = known.into_iter().map(|file| (file.id, file.status)).collect();
    let mut unusable = Unusable::default();
    for id in ids {
        match known.get(id).map(String::as_str) {
            Some("completed") => {}
            Some("aborted" | "deleted") => unusable.gone.push(*id),
            _ => unusable.not_yet.push(*id),
        }
    }
    Ok(unusable)
}
