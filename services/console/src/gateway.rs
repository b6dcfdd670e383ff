//! State that the routes of the gateway share.

use std::sync::Arc;

use http_kit::Secrets;

use crate::{
    authenticator::Authenticator, openapi::DocumentCache, service_status::StatusCache, settings::Settings,
    upstreams::Upstreams,
};

pub(crate) struct Gateway {
    pub(crate) secrets: Secrets,
    pub(crate) upstreams: Upstreams,
    pub(crate) authenticator: Authenticator,
    pub(crate) statuses: StatusCache,
    pub(crate) documents: DocumentCache,
    pub(crate) runs_on: Vec<(String, String)>,
}

impl Gateway {
    pub(crate) fn new(settings: Settings) -> Arc<Self> {
        let Settings { secrets, admin_key, upstreams, health, runs_on, max_open_requests: _ } = settings;
        Arc::new(Self {
            authenticator: Authenticator::new(secrets.clone(), admin_key, upstreams.organization.clone()),
            statuses: StatusCache::new(upstreams.clone(), health),
            documents: DocumentCache::new(upstreams.clone(), secrets.clone()),
            secrets,
            upstreams,
            runs_on,
        })
    }
}
