//! Files: uploads that survive broken connections, and what was uploaded, to read and to delete.
//!
//! The problem: files are large and connections break. What has arrived must not be sent again, must not be counted twice, and
//! must not be lost once the client was told that it is there.
//!
//! The invariant: bytes are durable as *part objects* before the [aggregate](domain::file) records them, and a file's
//! content is exactly the list of recorded parts. Whoever loses a race deletes their own object; an object that nobody
//! recorded is nothing, and is [swept](sweep) after a day.

mod body_receiver;
pub mod domain;
mod http;
mod projections;
mod sagas;
pub mod storage;
pub mod sweep;

use std::sync::Arc;

use epoch::Repository;
use service_kit::{
    operate::EventType,
    service::{Assembled, Host, Service, ServiceError, Task},
};
use sqlx::migrate::Migrator;

use crate::{
    body_receiver::Receiver, domain::file::File, http::Api, projections::files::FilesProjection,
    sagas::part_cleanup::PartCleanup, storage::PartStore,
};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// The file service.
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

    fn assemble(host: &Host) -> Result<Assembled, ServiceError> {
        let parts = PartStore::in_directory(&storage::data_dir()).map_err(ServiceError::failed)?;
        Ok(assemble(host, &parts))
    }
}

/// Puts the service together on a store of parts.
#[must_use]
pub fn assemble(host: &Host, parts: &PartStore) -> Assembled {
    let files = Repository::<File, _>::new(host.store.clone());
    let api = Api {
        secrets: host.secrets.clone(),
        pool: host.pool().clone(),
        progress: host.progress.clone(),
        files: files.clone(),
        parts: parts.clone(),
        receiver: Receiver::new(files.clone(), parts.clone(), host.stop.clone()),
    };
    let (router, openapi) = http::routes().with_state(api).split_for_parts();
    let swept = parts.clone();
    let sweep: Task = Arc::new(move |stop| Box::pin(sweep::run(files.clone(), swept.clone(), stop)));
    Assembled {
        router,
        openapi,
        handlers: vec![Arc::new(FilesProjection), Arc::new(PartCleanup::new(parts.clone()))],
        sagas: Vec::new(),
        tasks: vec![("part-sweep", sweep)],
    }
}
