//! The file service: resumable uploads, downloads and deletions.
//!
//! Files are large and connections break. Received bytes must not be sent again, must not be counted twice, and must
//! not be lost after the client has their acknowledgement.
//!
//! Bytes are durable as *part objects* before the [aggregate](domain::file) records them, and the content of a file is
//! exactly its list of recorded parts. An upload request that loses a write conflict deletes its own part object. A
//! part object without a record belongs to no file, and the [sweep] deletes it after a day.

mod body_receiver;
pub mod domain;
mod http;
mod projections;
mod queries;
mod sagas;
pub mod storage;
pub mod sweep;

use std::sync::Arc;

use epoch::Repository;
use epoch_postgres::ProjectionHandler;
use service_host::{
    event_type::EventType,
    service::{Service, ServiceContext, ServiceError, ServiceParts, Task},
};
use sqlx::migrate::Migrator;

use crate::{
    body_receiver::BodyReceiver, domain::file::File, http::HttpState, projections::files::FilesProjection,
    sagas::part_cleanup::PartCleanup, storage::PartStore,
};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

pub struct FileService;

impl Service for FileService {
    const NAME: &'static str = "file";
    const PORT: u16 = 8083;

    fn migrations() -> &'static Migrator {
        &MIGRATIONS
    }

    fn schemas() -> Vec<&'static str> {
        contracts::schemas()
    }

    fn events() -> Vec<EventType> {
        vec![EventType::of::<contracts::file::FileEvent>(contracts::file::AGGREGATE)]
    }

    fn assemble(host: &ServiceContext) -> Result<ServiceParts, ServiceError> {
        let parts = PartStore::in_directory(&storage::data_dir()).map_err(ServiceError::failed)?;
        Ok(assemble(host, &parts))
    }
}

/// Assembles the service on a part store.
#[must_use]
pub fn assemble(host: &ServiceContext, parts: &PartStore) -> ServiceParts {
    let files = Repository::<File, _>::new(host.store.clone());
    let state = HttpState {
        secrets: host.secrets.clone(),
        pool: host.pool().clone(),
        progress: host.progress.clone(),
        files: files.clone(),
        parts: parts.clone(),
        receiver: BodyReceiver::new(files.clone(), parts.clone(), host.stop.clone()),
    };
    let (router, openapi) = http::routes().with_state(state).split_for_parts();
    let swept_parts = parts.clone();
    let sweep: Task = Arc::new(move |stop| Box::pin(sweep::run(files.clone(), swept_parts.clone(), stop)));
    ServiceParts {
        router,
        openapi,
        handlers: vec![Arc::new(ProjectionHandler(FilesProjection)), Arc::new(PartCleanup::new(parts.clone()))],
        sagas: Vec::new(),
        tasks: vec![("part-sweep", sweep)],
    }
}
