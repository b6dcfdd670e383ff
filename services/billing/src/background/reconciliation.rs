//! Tasks that compare rollups, copies of events and read models with their sources.

use std::sync::Arc;

use service_host::{
    peer::Peer,
    service::{ServiceContext, ServiceError, Task},
    streams::StreamClient,
};
use usage::reconciliation::{self, copy::Copies, rollups};

/// Returns the tasks by name. `service` is the caller in requests to the owners of the copied events.
///
/// # Errors
/// [`ServiceError`] when an owner's address is invalid.
pub(crate) fn tasks(service: &'static str, host: &ServiceContext) -> Result<[(&'static str, Task); 3], ServiceError> {
    let pool = host.pool().clone();
    let reconciliation: Task = Arc::new(move |stop| {
        let checks = rollups::run(pool.clone(), stop);
        Box::pin(async move { checks.await.map_err(ServiceError::failed) })
    });
    let files = Peer::new(service, host.peers.file_url.clone(), host.secrets.clone());
    let files = StreamClient::new(files.map_err(ServiceError::failed)?, "file", contracts::file::AGGREGATE);
    let jobs = Peer::new(service, host.peers.job_url.clone(), host.secrets.clone());
    let jobs = StreamClient::new(jobs.map_err(ServiceError::failed)?, "job", contracts::job::AGGREGATE);
    let copies = Copies::new(host.pool().clone(), files, jobs);
    let copies: Task = Arc::new(move |stop| {
        let copies = copies.clone();
        Box::pin(async move { copies.run(stop).await.map_err(ServiceError::failed) })
    });
    let store = host.store.clone();
    let accounts: Task = Arc::new(move |stop| {
        let checks = reconciliation::accounts::run(store.clone(), stop);
        Box::pin(async move { checks.await.map_err(ServiceError::failed) })
    });
    Ok([
        ("reconciliation", reconciliation),
        ("reconciliation-of-copies", copies),
        ("reconciliation-of-accounts", accounts),
    ])
}
