//! `/api/v1/openapi.json`: the OpenAPI documents of all services, merged into one.
//!
//! The document is cached for [`COMPLETE_FOR`]. If a service does not answer, the document names it, describes the
//! other services, and is cached for [`INCOMPLETE_FOR`] only.

mod merge;

use std::time::{Duration, Instant};

use axum::{
    body::Body,
    extract::Request,
    http::{StatusCode, Uri},
};
use bytes::Bytes;
use epoch::error_chain;
use futures::future::join_all;
use http_kit::Secrets;
use moka::{Expiry, future::Cache};
use serde_json::Value;

use self::merge::merge;
use crate::{
    upstream::{Upstream, UpstreamError},
    upstreams::Upstreams,
};

pub(crate) const PATH: &str = "/api/v1/openapi.json";

const COMPLETE_FOR: Duration = Duration::from_secs(30);
const INCOMPLETE_FOR: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_DOCUMENT_BYTES: usize = 8 * 1024 * 1024;

/// Cache of the merged document.
pub(crate) struct DocumentCache {
    upstreams: Upstreams,
    secrets: Secrets,
    cache: Cache<(), Document>,
}

#[derive(Clone)]
struct Document {
    json: Bytes,
    complete: bool,
}

impl DocumentCache {
    pub(crate) fn new(upstreams: Upstreams, secrets: Secrets) -> Self {
        Self { upstreams, secrets, cache: Cache::builder().max_capacity(1).expire_after(CacheLifetime).build() }
    }

    /// Returns the document as JSON text.
    pub(crate) async fn current(&self) -> Bytes {
        self.cache.get_with((), self.fetch()).await.json
    }

    async fn fetch(&self) -> Document {
        // The runner has no public routes.
        let services = self.upstreams.named().into_iter().filter(|(name, _)| *name != "runner");
        let results =
            join_all(services.map(async |(name, upstream)| (name, self.fetch_from(name, upstream).await))).await;
        let (mut documents, mut missing) = (Vec::new(), Vec::new());
        for (name, result) in results {
            match result {
                Ok(document) => documents.push((name, document)),
                Err(error) => {
                    tracing::warn!(
                        service = name,
                        error = error_chain(&error),
                        "OpenAPI document of a service is missing"
                    );
                    missing.push(name);
                }
            }
        }
        let json = merge(documents, &missing).to_string().into();
        Document { json, complete: missing.is_empty() }
    }

    async fn fetch_from(&self, name: &str, upstream: &Upstream) -> Result<Value, UpstreamError> {
        let unexpected = |error: serde_json::Error| UpstreamError::UnexpectedResponse { detail: error.to_string() };
        if let Upstream::Local { openapi, .. } = upstream {
            return serde_json::to_value(openapi).map_err(unexpected);
        }
        let mut request = Request::new(Body::empty());
        let path = format!("/internal/v1/{name}/openapi.json");
        *request.uri_mut() =
            Uri::try_from(path).map_err(|error| UpstreamError::UnexpectedResponse { detail: error.to_string() })?;
        let (status, body) = upstream.call(request, &self.secrets, TIMEOUT, MAX_DOCUMENT_BYTES).await?;
        if status != StatusCode::OK {
            return Err(UpstreamError::UnexpectedResponse { detail: status.to_string() });
        }
        serde_json::from_slice(&body).map_err(unexpected)
    }
}

struct CacheLifetime;

impl Expiry<(), Document> for CacheLifetime {
    fn expire_after_create(&self, (): &(), document: &Document, _: Instant) -> Option<Duration> {
        Some(if document.complete { COMPLETE_FOR } else { INCOMPLETE_FOR })
    }
}
