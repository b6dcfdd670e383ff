//! Who stands before the door.
//!
//! The problem: every request carries a key that only the organization service can judge, and asking it for each one would
//! make it the slowest part of everything.
//!
//! The invariant: a key that this installation never issued is refused here, without asking anybody. What the organization
//! service says about one of ours is believed for at most [`VALID_FOR`] (so that is how long a revoked key may go on
//! working), and that it knows no such key for at most [`INVALID_FOR`]. Many requests with one key ask once. Where it can't
//! be asked nobody is let in, and that is not remembered. Keys are remembered by their SHA-256 only.

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
use moka::{Expiry, future::Cache};
use serde::Deserialize;
use service_kit::{Caller, Problem, Role, Secrets, api_key::ApiKey};
use uuid::Uuid;

use crate::{
    admin_key::AdminKey,
    upstream::{Upstream, UpstreamError},
};

/// How long a key that was valid is taken to be valid.
const VALID_FOR: Duration = Duration::from_secs(5);

/// How long an unknown key is taken to be unknown: shorter, since a new key should work soon.
const INVALID_FOR: Duration = Duration::from_secs(1);

const MAX_REMEMBERED: u64 = 10_000;
const PATH: &str = "/internal/v1/organization/authenticate";
const LIMIT: Duration = Duration::from_secs(5);
const MAX_ANSWER_BYTES: usize = 16 * 1024;

/// The SHA-256 of a key.
type KeyDigest = [u8; 32];

/// Finds out who asks.
pub(crate) struct Authenticator {
    secrets: Secrets,
    admin_key: AdminKey,
    organization: Upstream,
    remembered: Cache<KeyDigest, Option<Arc<Caller>>>,
}

impl Authenticator {
    pub(crate) fn new(secrets: Secrets, admin_key: AdminKey, organization: Upstream) -> Self {
        let remembered = Cache::builder().max_capacity(MAX_REMEMBERED).expire_after(Freshness).build();
        Self { secrets, admin_key, organization, remembered }
    }

    /// Who asks, by the request's `Authorization`.
    ///
    /// # Errors
    /// 401 without a valid key; 503 when that can't be found out.
    pub(crate) async fn caller(&self, headers: &HeaderMap) -> Result<Arc<Caller>, Problem> {
        let token = bearer(headers)?;
        if self.admin_key.is(token) {
            return Ok(Arc::new(Caller::operator()));
        }
        let key = token.parse::<ApiKey>().ok().filter(|key| key.is_genuine(&self.secrets));
        let Some(key) = key else { return Err(invalid()) };
        let digest = key.digest();
        let known = self.remembered.try_get_with(digest, self.look_up(digest)).await;
        known.map_err(|problem| Problem::clone(&problem))?.ok_or_else(invalid)
    }

    async fn look_up(&self, digest: KeyDigest) -> Result<Option<Arc<Caller>>, Problem> {
        let body = serde_json::json!({ "key_sha256": hex::encode(digest) });
        let mut request = Request::new(Body::from(body.to_string()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(PATH);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let (status, body) = self.organization.ask(request, &self.secrets, LIMIT, MAX_ANSWER_BYTES).await?;
        match status {
            StatusCode::OK => Ok(Some(Arc::new(read(&body)?))),
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                tracing::warn!(status = status.as_u16(), "keys can't be checked");
                Err(Problem::unavailable("API keys can't be checked now; the same request may be sent again"))
            }
            status => Err(Problem::internal(format_args!("keys can't be checked: {status}"))),
        }
    }
}

/// How long what is known about a key counts, from when it was learnt.
struct Freshness;

impl Expiry<KeyDigest, Option<Arc<Caller>>> for Freshness {
    fn expire_after_create(&self, _: &KeyDigest, known: &Option<Arc<Caller>>, _: Instant) -> Option<Duration> {
        Some(if known.is_some() { VALID_FOR } else { INVALID_FOR })
    }
}

#[derive(Deserialize)]
struct KnownKey {
    organization: Uuid,
    key_id: Uuid,
    user_id: Option<Uuid>,
    role: Role,
}

fn read(body: &[u8]) -> Result<Caller, UpstreamError> {
    let unexpected = |detail: String| UpstreamError::Answer { detail };
    let known: KnownKey = serde_json::from_slice(body).map_err(|error| unexpected(error.to_string()))?;
    // No key of an organization reaches beyond it, whatever a table says.
    if known.role > Role::Owner {
        return Err(unexpected(format!("an organization's key has the role {}", known.role.as_str())));
    }
    let caller = Caller::key(known.key_id, known.organization, known.role);
    Ok(Caller { user_id: known.user_id, ..caller })
}

/// The token in the request's one `Authorization: Bearer`.
fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let missing = || Problem::unauthorized("send your API key as Authorization: Bearer <key>");
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(missing()) };
    let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(missing());
    }
    Ok(token.trim())
}

fn invalid() -> Problem {
    Problem::unauthorized("the API key is not valid")
}
