//! `/api/v1/openapi.json`: the documents of all services as one.
//!
//! The problem: the API is one to its clients, but each service knows only its own part of the document.
//!
//! The invariant: the document describes what the services behind the door serve now (asked at most every
//! [`COMPLETE_FOR`]); when one can't be asked, the document says so, holds the others' parts, and is soon made again.

mod merge;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures::future::join_all;
use moka::{Expiry, future::Cache};
use serde_json::Value;
use service_kit::{Secrets, server};

use self::merge::merged;
use crate::{Upstream, UpstreamError, Upstreams, gateway::Door, upstream::chain};

/// Where it is.
pub(crate) const PATH: &str = "/api/v1/openapi.json";

const COMPLETE_FOR: Duration = Duration::from_secs(30);
const INCOMPLETE_FOR: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(5);
const MAX_DOCUMENT_BYTES: usize = 8 * 1024 * 1024;

/// The document's route.
pub(crate) fn routes() -> Router<Arc<Door>> {
    Router::new().route(PATH, get(document)).layer(server::bounded())
}

async fn document(State(door): State<Arc<Door>>) -> Response {
    let document = door.documents.now().await;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, document.json).into_response()
}

/// Puts the document together.
pub(crate) struct Documents {
    upstreams: Upstreams,
    secrets: Secrets,
    known: Cache<(), Document>,
}

#[derive(Clone)]
struct Document {
    json: Bytes,
    complete: bool,
}

impl Documents {
    pub(crate) fn new(upstreams: Upstreams, secrets: Secrets) -> Self {
        Self { upstreams, secrets, known: Cache::builder().max_capacity(1).expire_after(Freshness).build() }
    }

    async fn now(&self) -> Document {
        self.known.get_with((), self.ask()).await
    }

    async fn ask(&self) -> Document {
        // The runner has no routes for the public.
        let services = self.upstreams.named().into_iter().filter(|(name, _)| *name != "runner");
        let answers = join_all(services.map(async |(name, upstream)| (name, self.of(name, upstream).await))).await;
        let (mut parts, mut missing) = (Vec::new(), Vec::new());
        for (name, answer) in answers {
            match answer {
                Ok(part) => parts.push((name, part)),
                Err(error) => {
                    tracing::warn!(
                        service = name,
                        error = chain(&error),
                        "a service's part of the OpenAPI document is missing"
                    );
                    missing.push(name);
                }
            }
        }
        let json = merged(parts, &missing).to_string().into();
        Document { json, complete: missing.is_empty() }
    }

    async fn of(&self, name: &str, upstream: &Upstream) -> Result<Value, UpstreamError> {
        let unexpected = |error: serde_json::Error| UpstreamError::Answer { detail: error.to_string() };
        if let Upstream::Local { openapi, .. } = upstream {
            return serde_json::to_value(openapi).map_err(unexpected);
        }
        let mut request = Request::new(Body::empty());
        let path = format!("/internal/v1/{name}/openapi.json");
        *request.uri_mut() =
            Uri::try_from(path).map_err(|error| UpstreamError::Answer { detail: error.to_string() })?;
        let (status, body) = upstream.ask(request, &self.secrets, LIMIT, MAX_DOCUMENT_BYTES).await?;
        if status != StatusCode::OK {
            return Err(UpstreamError::Answer { detail: status.to_string() });
        }
        serde_json::from_slice(&body).map_err(unexpected)
    }
}

struct Freshness;

impl Expiry<(), Document> for Freshness {
    fn expire_after_create(&self, (): &(), document: &Document, _: Instant) -> Option<Duration> {
        Some(if document.complete { COMPLETE_FOR } else { INCOMPLETE_FOR })
    }
}
