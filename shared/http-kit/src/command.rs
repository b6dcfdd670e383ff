//! The command context of a request: idempotency, expected version, caller and trace.
//!
//! The command id of a request with an `Idempotency-Key` is a function of tenant, method, path and key; its fingerprint is the
//! SHA-256 of the body. A repeated request is therefore the same command, and another body under the same key is refused.
//! `If-Match` becomes the expected version.

use axum::{
    Json,
    body::Bytes,
    extract::{FromRef, FromRequest, FromRequestParts, OriginalUri, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts},
};
use epoch::{CommandContext, Version};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{caller::Caller, extract::unreadable_body, problem::Problem, secrets::Secrets, trace_context};

/// Identifies a request, so that the client can repeat it safely.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

const MAX_KEY_BYTES: usize = 255;

/// A command with a JSON body. POST requires an `Idempotency-Key`.
///
/// A request without body and `Content-Type` is parsed as `null`, so the type of a command without a body is `Command<()>`.
#[derive(Debug, Clone)]
pub struct Command<T> {
    /// Becomes the metadata of the events.
    pub context: CommandContext,
    pub caller: Caller,
    pub body: T,
}

impl<T> Command<T> {
    /// Returns the version from `If-Match`.
    ///
    /// # Errors
    /// 428 without `If-Match`.
    pub fn require_version(&self) -> Result<Version, Problem> {
        require_expected(self.context.expected)
    }
}

/// The headers of a command whose body is not JSON. `Idempotency-Key` is optional.
#[derive(Debug, Clone)]
pub struct CommandHeaders {
    pub caller: Caller,
    /// `Idempotency-Key`: 1 to 255 visible ASCII characters.
    pub idempotency_key: Option<String>,
    /// The version from `If-Match`.
    pub expected: Option<Version>,
    method: Method,
    path: String,
}

impl CommandHeaders {
    /// Returns the command's context. `body` is the request body, or other bytes that distinguish two requests.
    #[must_use]
    pub fn context(&self, body: &[u8]) -> CommandContext {
        let mut context = CommandContext::new().by(self.caller.actor.as_str());
        context.tenant = self.caller.organization;
        context.trace_context = trace_context::traceparent_of_current_span().map(Into::into);
        context.expected = self.expected;
        match &self.idempotency_key {
            Some(key) => {
                let id = command_id(self.caller.organization, &self.method, &self.path, key);
                context.repeatable(id, Sha256::digest(body).as_slice())
            }
            None => context,
        }
    }

    /// Returns the version from `If-Match`.
    ///
    /// # Errors
    /// 428 without `If-Match`.
    pub fn require_version(&self) -> Result<Version, Problem> {
        require_expected(self.expected)
    }

    /// Checks that the request has an `Idempotency-Key`.
    ///
    /// # Errors
    /// 400 without one.
    pub fn require_idempotency_key(&self) -> Result<(), Problem> {
        if self.idempotency_key.is_some() {
            return Ok(());
        }
        let detail = "send an Idempotency-Key header, and send the same key when you repeat the request";
        Err(Problem::bad_request(detail).of_kind("/problems/idempotency-key-required", "Idempotency-Key is required"))
    }
}

impl<S> FromRequestParts<S> for CommandHeaders
where
    S: Send + Sync,
    Secrets: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let caller = Caller::from_request_parts(parts, state).await?;
        // A nested router sees only the rest of the path.
        let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |OriginalUri(uri)| uri);
        Ok(Self {
            caller,
            idempotency_key: idempotency_key(&parts.headers)?,
            expected: if_match(&parts.headers)?,
            method: parts.method.clone(),
            path: uri.path().to_owned(),
        })
    }
}

impl<T, S> FromRequest<S> for Command<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
    Secrets: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let (mut parts, body) = request.into_parts();
        let headers = CommandHeaders::from_request_parts(&mut parts, state).await?;
        if parts.method == Method::POST {
            headers.require_idempotency_key()?;
        }
        let content_type = parts.headers.get(header::CONTENT_TYPE).cloned();
        let body = Bytes::from_request(Request::from_parts(parts, body), state)
            .await
            .map_err(|rejection| unreadable_body(rejection.status(), rejection.body_text()))?;
        let context = headers.context(&body);
        let body = parse_body(content_type.as_ref(), &body)?;
        Ok(Self { context, caller: headers.caller, body })
    }
}

fn parse_body<T: DeserializeOwned>(content_type: Option<&HeaderValue>, body: &[u8]) -> Result<T, Problem> {
    if content_type.is_some_and(is_json) {
        let Json(body) = Json::from_bytes(body)?;
        return Ok(body);
    }
    let is_absent = content_type.is_none() && body.is_empty();
    is_absent
        .then(|| serde_json::from_value(serde_json::Value::Null).ok())
        .flatten()
        .ok_or_else(|| Problem::unsupported_media_type("the body must be JSON, with Content-Type: application/json"))
}

/// `application/json` or `application/<anything>+json`, with any parameters.
fn is_json(content_type: &HeaderValue) -> bool {
    let text = content_type.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.strip_prefix("application/").is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

/// Returns the same id for the same request of the same tenant, and another id for any other request.
fn command_id(tenant: Option<Uuid>, method: &Method, path: &str, key: &str) -> Uuid {
    let namespace = tenant.unwrap_or(Uuid::nil());
    Uuid::new_v5(&namespace, format!("{method} {path} {key}").as_bytes())
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = single(headers, &IDEMPOTENCY_KEY)? else { return Ok(None) };
    let bytes = value.as_bytes();
    if !(1..=MAX_KEY_BYTES).contains(&bytes.len()) || !bytes.iter().all(u8::is_ascii_graphic) {
        let detail = format!("Idempotency-Key must be 1 to {MAX_KEY_BYTES} visible ASCII characters");
        return Err(
            Problem::bad_request(detail).of_kind("/problems/idempotency-key-malformed", "malformed Idempotency-Key")
        );
    }
    Ok(Some(String::from_utf8_lossy(bytes).into_owned()))
}

fn if_match(headers: &HeaderMap) -> Result<Option<Version>, Problem> {
    let Some(value) = single(headers, &header::IF_MATCH)? else { return Ok(None) };
    let quoted = value.to_str().ok().and_then(|text| text.strip_prefix('"')?.strip_suffix('"'));
    let digits = quoted.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(version) => Ok(Some(Version::new(version))),
        None => Err(Problem::bad_request("If-Match must be one ETag as returned by this API, like \"7\"")
            .of_kind("/problems/if-match-malformed", "malformed If-Match")),
    }
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(Problem::bad_request(format!("header {name} was sent more than once"))),
    }
}

fn require_expected(expected: Option<Version>) -> Result<Version, Problem> {
    expected
        .ok_or_else(|| Problem::precondition_required("send If-Match with the ETag of the version that you have read"))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, Method, header};
    use epoch::Version;
    use uuid::Uuid;

    use super::{IDEMPOTENCY_KEY, command_id, idempotency_key, if_match, is_json};

    #[test]
    fn command_id_depends_on_tenant_method_path_and_key() {
        let tenant = Uuid::from_u128(1);
        let id = command_id(Some(tenant), &Method::POST, "/jobs", "k");
        assert_eq!(id, command_id(Some(tenant), &Method::POST, "/jobs", "k"));
        let others = [
            command_id(None, &Method::POST, "/jobs", "k"),
            command_id(Some(Uuid::from_u128(2)), &Method::POST, "/jobs", "k"),
            command_id(Some(tenant), &Method::PUT, "/jobs", "k"),
            command_id(Some(tenant), &Method::POST, "/files", "k"),
            command_id(Some(tenant), &Method::POST, "/jobs", "l"),
        ];
        assert!(!others.contains(&id));
    }

    #[test]
    fn idempotency_key_is_visible_ascii_up_to_255_bytes() {
        let parse = |value: &[u8]| {
            let headers = HeaderMap::from_iter([(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).unwrap())]);
            idempotency_key(&headers).map_err(|problem| problem.kind())
        };
        assert_eq!(parse(b"a-1"), Ok(Some("a-1".to_owned())));
        assert!(parse(&[b'x'; 255]).is_ok());
        for wrong in [&b""[..], b"a b", b"\xc3\xa4", &[b'x'; 256]] {
            assert_eq!(parse(wrong), Err("/problems/idempotency-key-malformed"));
        }
        assert_eq!(idempotency_key(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn if_match_is_one_strong_etag() {
        let parse = |value: &'static str| {
            let headers = HeaderMap::from_iter([(header::IF_MATCH, HeaderValue::from_static(value))]);
            if_match(&headers).map_err(|problem| problem.status().as_u16())
        };
        assert_eq!(parse("\"7\""), Ok(Some(Version::new(7))));
        for wrong in
            ["", "7", "\"\"", "\"x\"", "\"-1\"", "\"+1\"", "W/\"7\"", "*", "\"7\", \"8\"", "\"99999999999999999999\""]
        {
            assert_eq!(parse(wrong), Err(400), "{wrong}");
        }
        assert_eq!(if_match(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn json_media_types_are_recognized() {
        let json = ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"];
        assert!(json.iter().all(|text| is_json(&HeaderValue::from_static(text))));
        let other = ["text/plain", "application/jsonp", "json", "", "text/json"];
        assert!(!other.iter().any(|text| is_json(&HeaderValue::from_static(text))));
    }
}
