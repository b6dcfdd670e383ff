//! The HTTP client for calls between services.
//!
//! Every call has a time limit, and carries the trace, the internal token and a caller. A failed call returns the other
//! service's problem. A call that changes state carries an idempotency key derived from its cause, so that it can be repeated.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue, IF_MATCH, InvalidHeaderValue};
use epoch::Version;
use http_body_util::BodyExt;
use http_kit::{
    Caller, Problem, Secrets, command::IDEMPOTENCY_KEY, command_response::etag, problem::ProblemDetails, trace_context,
};
use reqwest::{Body, Client, Method, Response, StatusCode, Url, redirect};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::Notify;
use uuid::Uuid;

const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const CALL_LIMIT: Duration = Duration::from_secs(10);
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// A header or the body cannot be written.
    #[error("call to {url} is malformed: {detail}")]
    Malformed { url: Url, detail: String },
    /// The connection failed before the whole response arrived. The call may have been executed: repeat it under the same key.
    #[error("no response from {url}: {source}")]
    NoResponse { url: Url, source: reqwest::Error },
    /// The other service neither reads the body nor responds. It may have received the whole body.
    #[error("{url} was idle for {} ms", limit.as_millis())]
    Idle { url: Url, limit: Duration },
    /// The other service responded with 4xx or 5xx.
    #[error("{url} responded {status}: {}", problem.detail)]
    Refused { url: Url, status: StatusCode, problem: Box<ProblemDetails> },
    /// The response is not the expected JSON.
    #[error("response of {url} is malformed: {source}")]
    MalformedResponse { url: Url, source: serde_json::Error },
}

impl PeerError {
    /// Returns the status if the other service responded with an error.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            PeerError::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Returns whether the same call may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            PeerError::NoResponse { .. } | PeerError::Idle { .. } => true,
            PeerError::Refused { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            PeerError::Malformed { .. } | PeerError::MalformedResponse { .. } => false,
        }
    }
}

impl From<PeerError> for Problem {
    /// 503 for a transient error, otherwise 500: the refusal is about our call, not about the client's request.
    fn from(error: PeerError) -> Self {
        if error.is_transient() {
            tracing::warn!(%error, "call to another service failed");
            return Problem::unavailable("another service is unavailable; repeat the same request later");
        }
        Problem::internal(error)
    }
}

/// A client of another service.
#[derive(Debug, Clone)]
pub struct Peer {
    client: Client,
    /// Without a read timeout, which would also run while a long body is being sent.
    upload_client: Client,
    base: Url,
    secrets: Secrets,
    caller: Caller,
}

impl Peer {
    /// Returns a client of the service at `base`, for calls by the service `name`.
    ///
    /// # Errors
    /// [`PeerError::NoResponse`] when the HTTP client cannot be set up.
    pub fn new(name: &str, base: Url, secrets: Secrets) -> Result<Self, PeerError> {
        let builder = || Client::builder().connect_timeout(CONNECT_LIMIT).redirect(redirect::Policy::none()).no_proxy();
        let failed = |source| PeerError::NoResponse { url: base.clone(), source };
        let client = builder().read_timeout(IDLE_LIMIT).build().map_err(failed)?;
        let upload_client = builder().build().map_err(failed)?;
        Ok(Self { client, upload_client, base, secrets, caller: Caller::service(name) })
    }

    /// Starts a call of `path`, which begins with `/` and may have a query.
    pub fn call(&self, method: Method, path: &str) -> Call {
        let mut url = self.base.clone();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url.set_query(query);
        Call {
            client: self.client.clone(),
            upload_client: self.upload_client.clone(),
            secrets: self.secrets.clone(),
            caller: self.caller.clone(),
            request: reqwest::Request::new(method, url),
            limit: Some(CALL_LIMIT),
            idle_limit: IDLE_LIMIT,
            malformed: None,
        }
    }

    pub fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    /// Starts a call that changes state. A repeated `key` repeats the same change.
    pub fn post(&self, path: &str, key: &str) -> Call {
        self.call(Method::POST, path).idempotency_key(key)
    }
}

/// A call that has not been sent.
#[derive(Debug)]
#[must_use = "a call does nothing until it is sent"]
pub struct Call {
    client: Client,
    upload_client: Client,
    secrets: Secrets,
    caller: Caller,
    request: reqwest::Request,
    limit: Option<Duration>,
    idle_limit: Duration,
    malformed: Option<String>,
}

impl Call {
    /// Acts for `organization`.
    pub fn acting_for(mut self, organization: Uuid) -> Self {
        self.caller = self.caller.acting_for(organization);
        self
    }

    /// Acts as `caller` instead of this service.
    pub fn as_caller(mut self, caller: Caller) -> Self {
        self.caller = caller;
        self
    }

    pub fn idempotency_key(self, key: &str) -> Self {
        self.header(IDEMPOTENCY_KEY, key)
    }

    /// Requires the resource to be at `version`.
    pub fn if_match(self, version: Version) -> Self {
        self.header(IF_MATCH, &etag(version))
    }

    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        match HeaderValue::from_str(value) {
            Ok(value) => {
                self.request.headers_mut().insert(name, value);
            }
            Err(error) => self.malformed = Some(error.to_string()),
        }
        self
    }

    pub fn json(mut self, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(body) => return self.header(CONTENT_TYPE, "application/json").body(body),
            Err(error) => self.malformed = Some(error.to_string()),
        }
        self
    }

    /// Sets the body. For long bodies, see [`Call::streaming`].
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        *self.request.body_mut() = Some(body.into());
        self
    }

    /// Removes the time limit of the call, for long bodies. The call still fails after an idle minute: with a body, a minute
    /// without progress in sending it and without a response; without a body, a minute in which nothing is received.
    pub fn streaming(self) -> Self {
        self.streaming_with_idle_limit(IDLE_LIMIT)
    }

    /// Like [`Call::streaming`], with another idle limit while a body is sent.
    pub fn streaming_with_idle_limit(mut self, limit: Duration) -> Self {
        self.limit = None;
        self.idle_limit = limit;
        self
    }

    /// Sets the time limit of the call (default: ten seconds).
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Sends the call.
    ///
    /// # Errors
    /// [`PeerError`] when there is no response, or a 4xx or 5xx.
    pub async fn send(mut self) -> Result<Response, PeerError> {
        let url = self.request.url().clone();
        if let Some(detail) = self.malformed {
            return Err(PeerError::Malformed { url, detail });
        }
        let invalid = |error: InvalidHeaderValue| PeerError::Malformed { url: url.clone(), detail: error.to_string() };
        let headers = self.request.headers_mut();
        self.caller.write_to(headers, &self.secrets).map_err(invalid)?;
        if let Some(traceparent) = trace_context::traceparent_of_current_span() {
            headers.insert("traceparent", HeaderValue::from_str(&traceparent).map_err(invalid)?);
        }
        *self.request.timeout_mut() = self.limit;
        if self.limit.is_some() || self.request.body().is_none() {
            return exchange(self.client, self.request).await;
        }
        let progress = Arc::new(Notify::new());
        let notifier = Arc::clone(&progress);
        let watched = self.request.body_mut().take().map(|body| {
            Body::wrap(body.map_frame(move |frame| {
                notifier.notify_one();
                frame
            }))
        });
        *self.request.body_mut() = watched;
        let mut exchange = pin!(exchange(self.upload_client, self.request));
        loop {
            tokio::select! {
                response = &mut exchange => return response,
                () = progress.notified() => {}
                () = tokio::time::sleep(self.idle_limit) => {
                    return Err(PeerError::Idle { url, limit: self.idle_limit });
                }
            }
        }
    }

    /// Sends the call and parses the JSON response.
    ///
    /// # Errors
    /// [`PeerError`] as for [`Call::send`], and when the response has another shape.
    pub async fn receive<T: DeserializeOwned>(self) -> Result<T, PeerError> {
        let url = self.request.url().clone();
        let body = self.send().await?.bytes().await;
        let body = body.map_err(|source| PeerError::NoResponse { url: url.clone(), source })?;
        serde_json::from_slice(&body).map_err(|source| PeerError::MalformedResponse { url, source })
    }
}

async fn exchange(client: Client, request: reqwest::Request) -> Result<Response, PeerError> {
    let url = request.url().clone();
    let no_response = |source| PeerError::NoResponse { url: url.clone(), source };
    let response = client.execute(request).await.map_err(no_response)?;
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return Ok(response);
    }
    let text = response.text().await.map_err(no_response)?;
    let problem = serde_json::from_str(&text).unwrap_or_else(|_| problem_without_details(status, text));
    Err(PeerError::Refused { url, status, problem: Box::new(problem) })
}

/// Converts an error response without a problem, e.g. of a proxy between the services.
fn problem_without_details(status: StatusCode, detail: String) -> ProblemDetails {
    ProblemDetails {
        kind: "about:blank".to_owned(),
        title: status.canonical_reason().unwrap_or("refused").to_owned(),
        status: status.as_u16(),
        detail,
        instance: None,
        trace_id: None,
        errors: None,
    }
}
