//! From a request to a command.
//!
//! The problem: a client that hears no answer asks again, and two clients change what both have read.
//!
//! The invariant: a request with an `Idempotency-Key` becomes a command whose id is a function of tenant, method, path and
//! key and whose fingerprint is the body's SHA-256, so the same request again is the same command and another body under
//! the same key is refused; `If-Match` becomes the version the command expects.

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

use crate::{caller::Caller, extract::unread, problem::Problem, secrets::Secrets, telemetry};

/// Names a request, so that it may be sent again.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

const MAX_KEY_BYTES: usize = 255;

/// A command as the HTTP edge sees it: a JSON body, and all that its headers say.
///
/// Requires an `Idempotency-Key` on POST. A request without body and `Content-Type` reads as `null`, so a command that
/// needs no body is a `Command<()>`.
#[derive(Debug, Clone)]
pub struct Command<T> {
    /// What travels with the command into its events.
    pub context: CommandContext,
    /// Who asks.
    pub caller: Caller,
    /// What is asked.
    pub body: T,
}

impl<T> Command<T> {
    /// The version from `If-Match`.
    ///
    /// # Errors
    /// 428 when the client didn't say it.
    pub fn require_version(&self) -> Result<Version, Problem> {
        require(self.context.expected)
    }
}

/// What a request's headers say about a command whose body isn't JSON. An `Idempotency-Key` is not required here.
#[derive(Debug, Clone)]
pub struct CommandHeaders {
    /// Who asks.
    pub caller: Caller,
    /// `Idempotency-Key`: 1 to 255 visible ASCII characters.
    pub idempotency_key: Option<String>,
    /// The version from `If-Match`.
    pub expected: Option<Version>,
    method: Method,
    path: String,
}

impl CommandHeaders {
    /// The context of a command that is asked with `body`, or with anything else that tells two requests apart.
    #[must_use]
    pub fn context(&self, body: &[u8]) -> CommandContext {
        let mut context = CommandContext::new().by(self.caller.actor.as_str());
        context.tenant = self.caller.organization;
        context.trace_context = telemetry::traceparent_of_current_span().map(Into::into);
        context.expected = self.expected;
        match &self.idempotency_key {
            Some(key) => {
                let id = command_id(self.caller.organization, &self.method, &self.path, key);
                context.repeatable(id, Sha256::digest(body).as_slice())
            }
            None => context,
        }
    }

    /// The version from `If-Match`.
    ///
    /// # Errors
    /// 428 when the client didn't say it.
    pub fn require_version(&self) -> Result<Version, Problem> {
        require(self.expected)
    }

    /// Checks that the request may be sent again.
    ///
    /// # Errors
    /// 400 when it has no `Idempotency-Key`.
    pub fn require_idempotency_key(&self) -> Result<(), Problem> {
        if self.idempotency_key.is_some() {
            return Ok(());
        }
        let detail = "send an Idempotency-Key header, and the same one when you send the same request again";
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
        // A nested router sees its own part of the path only.
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
        let declared = parts.headers.get(header::CONTENT_TYPE).cloned();
        let body = Bytes::from_request(Request::from_parts(parts, body), state)
            .await
            .map_err(|rejection| unread(rejection.status(), rejection.body_text()))?;
        let context = headers.context(&body);
        let body = read(declared.as_ref(), &body)?;
        Ok(Self { context, caller: headers.caller, body })
    }
}

fn read<T: DeserializeOwned>(content_type: Option<&HeaderValue>, body: &[u8]) -> Result<T, Problem> {
    let declared = content_type.is_some_and(is_json);
    if declared {
        let Json(body) = Json::from_bytes(body)?;
        return Ok(body);
    }
    let nothing_to_read = content_type.is_none() && body.is_empty();
    nothing_to_read
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

/// The same for the same request of the same tenant, and for no other.
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
        None => Err(Problem::bad_request("If-Match must be one ETag as this API gives them, like \"7\"")
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

fn require(expected: Option<Version>) -> Result<Version, Problem> {
    expected.ok_or_else(|| Problem::precondition_required("send If-Match with the ETag of what you have seen"))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, Method, header};
    use epoch::Version;
    use uuid::Uuid;

    use super::{IDEMPOTENCY_KEY, command_id, idempotency_key, if_match, is_json};

    #[test]
    fn the_command_id_depends_on_everything_that_names_the_request() {
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
    fn reads_idempotency_keys() {
        let read = |value: &[u8]| {
            let headers = HeaderMap::from_iter([(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).unwrap())]);
            idempotency_key(&headers).map_err(|problem| problem.kind())
        };
        assert_eq!(read(b"a-1"), Ok(Some("a-1".to_owned())));
        assert!(read(&[b'x'; 255]).is_ok());
        for wrong in [&b""[..], b"a b", b"\xc3\xa4", &[b'x'; 256]] {
            assert_eq!(read(wrong), Err("/problems/idempotency-key-malformed"));
        }
        assert_eq!(idempotency_key(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn reads_if_match() {
        let read = |value: &'static str| {
            let headers = HeaderMap::from_iter([(header::IF_MATCH, HeaderValue::from_static(value))]);
            if_match(&headers).map_err(|problem| problem.status().as_u16())
        };
        assert_eq!(read("\"7\""), Ok(Some(Version::new(7))));
        for wrong in
            ["", "7", "\"\"", "\"x\"", "\"-1\"", "\"+1\"", "W/\"7\"", "*", "\"7\", \"8\"", "\"99999999999999999999\""]
        {
            assert_eq!(read(wrong), Err(400), "{wrong}");
        }
        assert_eq!(if_match(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn knows_json() {
        let json = ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"];
        assert!(json.iter().all(|text| is_json(&HeaderValue::from_static(text))));
        let other = ["text/plain", "application/jsonp", "json", "", "text/json"];
        assert!(!other.iter().any(|text| is_json(&HeaderValue::from_static(text))));
    }
}
