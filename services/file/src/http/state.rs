//! State that the HTTP handlers share.

use axum::extract::FromRef;
use epoch::{Repository, VersionedState};
use epoch_postgres::{PgStore, Progress};
use http_kit::{
    Caller, Problem, Role, Secrets,
    access::{require, require_owner},
};
use sqlx::PgPool;
use uuid::Uuid;

use super::problem::file_not_found;
use crate::{body_receiver::BodyReceiver, domain::file::File, storage::PartStore};

#[derive(Clone, FromRef)]
pub(crate) struct HttpState {
    pub(crate) secrets: Secrets,
    pub(crate) pool: PgPool,
    pub(crate) progress: Progress,
    pub(crate) files: Repository<File, PgStore>,
    pub(crate) parts: PartStore,
    pub(crate) receiver: BodyReceiver,
}

impl HttpState {
    /// Loads a file of `organization` from its stream, in any state: an aborted or deleted file is returned too.
    ///
    /// # Errors
    /// 404 for callers outside the organization and for another organization's file, 403 for a lower role than `role`.
    pub(super) async fn load_file(
        &self,
        caller: &Caller,
        organization: Uuid,
        role: Role,
        id: Uuid,
    ) -> Result<VersionedState<File>, Problem> {
        require(caller, organization, role)?;
        let loaded = self.files.load(id).await?;
        let owner = (loaded.version.get() > 0).then_some(loaded.state.organization);
        require_owner(organization, owner, "file", id)?;
        Ok(loaded)
    }

    /// Loads a file like [`load_file`](Self::load_file), if it is uploading or complete.
    ///
    /// # Errors
    /// Those of [`load_file`](Self::load_file), and 404 for an aborted or deleted file.
    pub(super) async fn load_existing_file(
        &self,
        caller: &Caller,
        organization: Uuid,
        role: Role,
        id: Uuid,
    ) -> Result<VersionedState<File>, Problem> {
        let loaded = self.load_file(caller, organization, role, id).await?;
        if !loaded.state.exists() {
            return Err(file_not_found(id));
        }
        Ok(loaded)
    }
}
