//! Authentication of requests by API key.
//!
//! Only the organization service can look up a key, and a lookup per request would make it the bottleneck of the
//! platform.
//!
//! A key that this installation did not issue is rejected here, without a lookup. A valid key is cached for
//! [`VALID_FOR`], so a revoked key may work that much longer; an unknown key is cached for [`INVALID_FOR`]. Concurrent
//! requests with one key share one lookup. If the lookup fails, the request is rejected and nothing is cached. The
//! cache holds the SHA-256 of keys only.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::Request,
    http::{
        HeaderMap, HeaderValue, Method, StatusCode, Uri,
        header::{AUTHORIZATION, CONTENT_TYPE},
    },
};
use http_kit::{Caller, Problem, Role, Secrets, api_key::ApiKey};
use moka::{Expiry, future::Cache};
use serde::Deserialize;
use uuid::Uuid;

use crate::{
    admin_key::AdminKey,
    upstream::{Upstream, UpstreamError},
};

/// Cache lifetime of a valid key.
const VALID_FOR: Duration = Duration::from_secs(5);

/// Cache lifetime of an unknown key: short, because a new key should work soon.
const INVALID_FOR: Duration = Duration::from_secs(1);

const MAX_CACHED_KEYS: u64 = 10_000;
const LOOKUP_PATH: &str = "/internal/v1/organization/authenticate";
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_RESPONSE_BYTES: usize = 16 * 1024;

/// The SHA-256 of a key.
type KeyDigest = [u8; 32];

/// Authenticates requests.
pub(crate) struct Authenticator {
    secrets: Secrets,
    admin_key: AdminKey,
    organization: Upstream,
    cache: Cache<KeyDigest, Option<Arc<Caller>>>,
}

impl Authenticator {
    pub(crate) fn new(secrets: Secrets, admin_key: AdminKey, organization: Upstream) -> Self {
        let cache = Cache::builder().max_capacity(MAX_CACHED_KEYS).expire_after(CacheLifetime).build();
        Self { secrets, admin_key, organization, cache }
    }

    /// Returns the caller that the `Authorization` header identifies.
    ///
    /// # Errors
    /// 401 without a valid key, 503 when the lookup fails.
    pub(crate) async fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<Caller>, Problem> {
        let token = bearer_token(headers)?;
        if self.admin_key.matches(token) {
            return Ok(Arc::new(Caller::operator()));
        }
        let key = token.parse::<ApiKey>().ok().filter(|key| key.is_genuine(&self.secrets));
        let Some(key) = key else { return Err(invalid_key()) };
        let digest = key.digest();
        let caller = self.cache.try_get_with(digest, self.look_up(digest)).await;
        caller.map_err(|problem| Problem::clone(&problem))?.ok_or_else(invalid_key)
    }

    async fn look_up(&self, digest: KeyDigest) -> Result<Option<Arc<Caller>>, Problem> {
        let body = serde_json::json!({ "key_sha256": hex::encode(digest) });
        let mut request = Request::new(Body::from(body.to_string()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(LOOKUP_PATH);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let (status, body) = self.organization.call(request, &self.secrets, LOOKUP_TIMEOUT, MAX_RESPONSE_BYTES).await?;
        match status {
            StatusCode::OK => Ok(Some(Arc::new(parse_caller(&body)?))),
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                tracing::warn!(status = status.as_u16(), "API key lookup failed");
                Err(Problem::unavailable("API keys cannot be verified now; retry the same request"))
            }
            status => Err(Problem::internal(format_args!("API key lookup failed: {status}"))),
        }
    }
}

/// Cache lifetime of a lookup, counted from its result.
struct CacheLifetime;

impl Expiry<KeyDigest, Option<Arc<Caller>>> for CacheLifetime {
    fn expire_after_create(&self, _: &KeyDigest, caller: &Option<Arc<Caller>>, _: Instant) -> Option<Duration> {
        Some(if caller.is_some() { VALID_FOR } else { INVALID_FOR })
    }
}

/// Response of the lookup.
#[derive(Deserialize)]
struct KeyIdentity {
    organization: Uuid,
    key_id: Uuid,
    user_id: Option<Uuid>,
    role: Role,
}

fn parse_caller(body: &[u8]) -> Result<Caller, UpstreamError> {
    let unexpected = |detail: String| UpstreamError::UnexpectedResponse { detail };
    let key: KeyIdentity = serde_json::from_slice(body).map_err(|error| unexpected(error.to_string()))?;
    // Defense in depth: an API key never has a platform role, even if the table does.
    if key.role > Role::Owner {
        return Err(unexpected(format!("API key with the platform role {}", key.role.as_str())));
    }
    let caller = Caller::key(key.key_id, key.organization, key.role);
    Ok(Caller { user_id: key.user_id, ..caller })
}

/// Returns the token of the only `Authorization: Bearer` header.
fn bearer_token(headers: &HeaderMap) -> Result<&str, Problem> {
    let missing = || Problem::unauthorized("send an API key as Authorization: Bearer <key>");
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(missing()) };
    let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(missing());
    }
    Ok(token.trim())
}

fn invalid_key() -> Problem {
    Problem::unauthorized("the API key is not valid")
}
