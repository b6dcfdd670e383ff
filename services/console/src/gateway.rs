//! What the door's routes share.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue};
use service_kit::{Secrets, telemetry};

use crate::{Settings, Upstreams, authenticator::Authenticator, openapi::Documents, service_status::Statuses};

/// The door, as its routes see it.
pub(crate) struct Door {
    pub(crate) secrets: Secrets,
    pub(crate) upstreams: Upstreams,
    pub(crate) authenticator: Authenticator,
    pub(crate) statuses: Statuses,
    pub(crate) documents: Documents,
    pub(crate) runs_on: Vec<(String, String)>,
}

impl Door {
    pub(crate) fn new(settings: Settings) -> Arc<Self> {
        let Settings { secrets, admin_key, upstreams, health, runs_on, max_open_requests: _ } = settings;
        Arc::new(Self {
            authenticator: Authenticator::new(secrets.clone(), admin_key, upstreams.organization.clone()),
            statuses: Statuses::new(upstreams.clone(), health),
            documents: Documents::new(upstreams.clone(), secrets.clone()),
            secrets,
            upstreams,
            runs_on,
        })
    }
}

/// Makes what a service does for a request part of the trace that the request has here.
pub(crate) fn continue_trace(headers: &mut HeaderMap) {
    let traceparent = telemetry::traceparent_of_current_span();
    if let Some(traceparent) = traceparent.and_then(|traceparent| HeaderValue::try_from(traceparent).ok()) {
        headers.insert("traceparent", traceparent);
    }
}
