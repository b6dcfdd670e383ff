//! The service's routes.

mod content;
mod files;
mod problem;
mod tus;
mod uploads;

use axum::{extract::FromRef, middleware};
use epoch::{Repository, cache::Loaded};
use epoch_postgres::{PgStore, Progress};
use service_kit::{Caller, Problem, Role, Secrets, server};
use sqlx::PgPool;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{body_receiver::Receiver, domain::file::File, storage::PartStore};

/// What handlers work with.
#[derive(Clone, FromRef)]
pub(crate) struct Api {
    pub(crate) secrets: Secrets,
    pub(crate) pool: PgPool,
    pub(crate) progress: Progress,
    pub(crate) files: Repository<File, PgStore>,
    pub(crate) parts: PartStore,
    pub(crate) receiver: Receiver,
}

pub(crate) fn routes() -> OpenApiRouter<Api> {
    let uploads = OpenApiRouter::new()
        .routes(routes!(uploads::create, uploads::options))
        .routes(routes!(uploads::head, uploads::append, uploads::abort))
        .layer(middleware::from_fn(tus::speak))
        .layer(server::streaming());
    let content = OpenApiRouter::new().routes(routes!(content::read)).layer(server::streaming());
    let files = OpenApiRouter::new()
        .routes(routes!(files::list))
        .routes(routes!(files::read, files::remove))
        .layer(server::bounded());
    uploads.merge(content).merge(files)
}

impl Api {
    /// A file of `organization` as its stream has it, once the caller may see it. Another organization's doesn't exist; one
    /// that was aborted or deleted is still found.
    async fn file(&self, caller: &Caller, organization: Uuid, role: Role, id: Uuid) -> Result<Loaded<File>, Problem> {
        caller.in_organization(organization)?;
        caller.at_least(role)?;
        let loaded = self.files.load(id).await?;
        let is_theirs = loaded.version.get() > 0 && loaded.state.organization == organization;
        is_theirs.then_some(loaded).ok_or_else(|| problem::no_file(id))
    }

    /// The same for a file that is there.
    async fn existing_file(
        &self,
        caller: &Caller,
        organization: Uuid,
        role: Role,
        id: Uuid,
    ) -> Result<Loaded<File>, Problem> {
        let loaded = self.file(caller, organization, role, id).await?;
        if !loaded.state.exists() {
            return Err(problem::no_file(id));
        }
        Ok(loaded)
    }
}
