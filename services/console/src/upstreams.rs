//! The set of services that the gateway forwards to.

use service_host::config::PeerArgs;

use crate::upstream::{Upstream, UpstreamError};

/// The services.
#[derive(Clone)]
pub struct Upstreams {
    pub organization: Upstream,
    pub job: Upstream,
    pub file: Upstream,
    pub billing: Upstream,
    /// Has no public routes; the status page shows its state.
    pub runner: Upstream,
}

impl Upstreams {
    /// Returns the services at their addresses, each in a separate process.
    ///
    /// # Errors
    /// [`UpstreamError`] for an unusable address.
    pub fn http(peers: &PeerArgs) -> Result<Self, UpstreamError> {
        Ok(Self {
            organization: Upstream::http(peers.organization_url.clone())?,
            job: Upstream::http(peers.job_url.clone())?,
            file: Upstream::http(peers.file_url.clone())?,
            billing: Upstream::http(peers.billing_url.clone())?,
            runner: Upstream::http(peers.runner_url.clone())?,
        })
    }

    /// Returns all services with their names.
    pub(crate) fn named(&self) -> [(&'static str, &Upstream); 5] {
        [
            ("organization", &self.organization),
            ("job", &self.job),
            ("file", &self.file),
            ("billing", &self.billing),
            ("runner", &self.runner),
        ]
    }
}
