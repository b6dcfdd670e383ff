//! Asking another service.
//!
//! The problem: a call to another service can hang, break the trace, lose who asked, or be carried out twice.
//!
//! The invariant: every call has a time limit, carries the trace, the internal token and a caller, and fails with the
//! other's problem; a call that changes something carries an idempotency key, made of what caused it.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue, IF_MATCH, InvalidHeaderValue};
use epoch::Version;
use http_body_util::BodyExt;
use reqwest::{Body, Client, Method, Response, StatusCode, Url, redirect};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::{
    caller::Caller,
    changed::etag,
    command::IDEMPOTENCY_KEY,
    problem::{Problem, ProblemDetails},
    secrets::Secrets,
    telemetry,
};

const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const CALL_LIMIT: Duration = Duration::from_secs(10);
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// A header or the body can't be written.
    #[error("call to {url} can't be made: {detail}")]
    Malformed {
        /// What was to be called.
        url: Url,
        /// What is wrong with the call.
        detail: String,
    },
    /// No answer came, or not all of it. Whether the call was carried out is not known; repeat it under the same key.
    #[error("no answer from {url}: {source}")]
    NoAnswer {
        /// What was called.
        url: Url,
        /// What was seen.
        source: reqwest::Error,
    },
    /// A long body isn't taken any further, and not answered. Whether it was taken as a whole is not known.
    #[error("{url} was silent for {} ms", limit.as_millis())]
    Silent {
        /// What was called.
        url: Url,
        /// How long it may be silent.
        limit: Duration,
    },
    /// The other service refused.
    #[error("{url} answered {status}: {}", problem.detail)]
    Refused {
        /// What was called.
        url: Url,
        /// The answer's status.
        status: StatusCode,
        /// What it said.
        problem: Box<ProblemDetails>,
    },
    /// The answer isn't what was expected.
    #[error("answer of {url} can't be read: {source}")]
    Answer {
        /// What was called.
        url: Url,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl PeerError {
    /// The status of the refusal, where the other service refused.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            PeerError::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            PeerError::NoAnswer { .. } | PeerError::Silent { .. } => true,
            PeerError::Refused { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            PeerError::Malformed { .. } | PeerError::Answer { .. } => false,
        }
    }
}

impl From<PeerError> for Problem {
    /// 503 for what may pass, else 500: a refusal speaks of a request that our client never made.
    fn from(error: PeerError) -> Self {
        if error.is_transient() {
            tracing::warn!(%error, "another service is unavailable");
            return Problem::unavailable("another service can't be reached; the same request may be sent again");
        }
        Problem::internal(error)
    }
}

/// Another service.
#[derive(Debug, Clone)]
pub struct Peer {
    client: Client,
    /// Its limit on silence would run while a body is sent, however fast.
    sender: Client,
    base: Url,
    secrets: Secrets,
    caller: Caller,
}

impl Peer {
    /// The service at `base`, called by the service `name`.
    ///
    /// # Errors
    /// [`PeerError::NoAnswer`] when the HTTP client can't be set up.
    pub fn new(name: &str, base: Url, secrets: Secrets) -> Result<Self, PeerError> {
        let builder = || Client::builder().connect_timeout(CONNECT_LIMIT).redirect(redirect::Policy::none()).no_proxy();
        let failed = |source| PeerError::NoAnswer { url: base.clone(), source };
        let client = builder().read_timeout(SILENCE_LIMIT).build().map_err(failed)?;
        let sender = builder().build().map_err(failed)?;
        Ok(Self { client, sender, base, secrets, caller: Caller::service(name) })
    }

    /// A call of `path`, which begins with `/` and may have a query.
    pub fn call(&self, method: Method, path: &str) -> Call {
        let mut url = self.base.clone();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url.set_query(query);
        Call {
            client: self.client.clone(),
            sender: self.sender.clone(),
            secrets: self.secrets.clone(),
            caller: self.caller.clone(),
            request: reqwest::Request::new(method, url),
            limit: Some(CALL_LIMIT),
            silence_limit: SILENCE_LIMIT,
            malformed: None,
        }
    }

    /// A call that changes nothing.
    pub fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    /// A call that changes something; the same `key` again is the same change.
    pub fn post(&self, path: &str, key: &str) -> Call {
        self.call(Method::POST, path).idempotency_key(key)
    }
}

/// A call being put together.
#[derive(Debug)]
#[must_use = "a call does nothing until it is sent"]
pub struct Call {
    client: Client,
    sender: Client,
    secrets: Secrets,
    caller: Caller,
    request: reqwest::Request,
    limit: Option<Duration>,
    silence_limit: Duration,
    malformed: Option<String>,
}

impl Call {
    /// On behalf of `organization`.
    pub fn acting_for(mut self, organization: Uuid) -> Self {
        self.caller = self.caller.acting_for(organization);
        self
    }

    /// In the name of `caller` rather than this service's.
    pub fn as_caller(mut self, caller: Caller) -> Self {
        self.caller = caller;
        self
    }

    /// The same key again is the same change.
    pub fn idempotency_key(self, key: &str) -> Self {
        self.header(IDEMPOTENCY_KEY, key)
    }

    /// Refused unless the thing called is at `version`.
    pub fn if_match(self, version: Version) -> Self {
        self.header(IF_MATCH, &etag(version))
    }

    /// With a header more.
    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        match HeaderValue::from_str(value) {
            Ok(value) => {
                self.request.headers_mut().insert(name, value);
            }
            Err(error) => self.malformed = Some(error.to_string()),
        }
        self
    }

    /// With a JSON body.
    pub fn json(mut self, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(body) => return self.header(CONTENT_TYPE, "application/json").body(body),
            Err(error) => self.malformed = Some(error.to_string()),
        }
        self
    }

    /// With any body; see [`Call::streaming`] for long ones.
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        *self.request.body_mut() = Some(body.into());
        self
    }

    /// With no limit on the whole call, for long bodies. Silence of a minute still ends it: where there is a body to send,
    /// when for so long nothing of it is taken and no answer begins; else, when for so long nothing of the answer comes.
    pub fn streaming(self) -> Self {
        self.streaming_unless_silent(SILENCE_LIMIT)
    }

    /// The same for a service that may, while a body is sent to it, be silent for `limit`.
    pub fn streaming_unless_silent(mut self, limit: Duration) -> Self {
        self.limit = None;
        self.silence_limit = limit;
        self
    }

    /// With another limit on the whole call than ten seconds.
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Makes the call.
    ///
    /// # Errors
    /// [`PeerError`] when there is no answer, or one of status 4xx or 5xx.
    pub async fn send(mut self) -> Result<Response, PeerError> {
        let url = self.request.url().clone();
        if let Some(detail) = self.malformed {
            return Err(PeerError::Malformed { url, detail });
        }
        let invalid = |error: InvalidHeaderValue| PeerError::Malformed { url: url.clone(), detail: error.to_string() };
        let headers = self.request.headers_mut();
        self.caller.write_to(headers, &self.secrets).map_err(invalid)?;
        if let Some(traceparent) = telemetry::traceparent_of_current_span() {
            headers.insert("traceparent", HeaderValue::from_str(&traceparent).map_err(invalid)?);
        }
        *self.request.timeout_mut() = self.limit;
        if self.limit.is_some() || self.request.body().is_none() {
            return exchange(self.client, self.request).await;
        }
        let progress = Arc::new(Notify::new());
        let progressed = Arc::clone(&progress);
        let watched = self.request.body_mut().take().map(|body| {
            Body::wrap(body.map_frame(move |frame| {
                progressed.notify_one();
                frame
            }))
        });
        *self.request.body_mut() = watched;
        let mut exchange = pin!(exchange(self.sender, self.request));
        loop {
            tokio::select! {
                answer = &mut exchange => return answer,
                () = progress.notified() => {}
                () = tokio::time::sleep(self.silence_limit) => {
                    return Err(PeerError::Silent { url, limit: self.silence_limit });
                }
            }
        }
    }

    /// Makes the call and reads its JSON answer.
    ///
    /// # Errors
    /// [`PeerError`] as for [`Call::send`], and when the answer is of another shape.
    pub async fn receive<T: DeserializeOwned>(self) -> Result<T, PeerError> {
        let url = self.request.url().clone();
        let body = self.send().await?.bytes().await;
        let body = body.map_err(|source| PeerError::NoAnswer { url: url.clone(), source })?;
        serde_json::from_slice(&body).map_err(|source| PeerError::Answer { url, source })
    }
}

async fn exchange(client: Client, request: reqwest::Request) -> Result<Response, PeerError> {
    let url = request.url().clone();
    let no_answer = |source| PeerError::NoAnswer { url: url.clone(), source };
    let response = client.execute(request).await.map_err(no_answer)?;
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return Ok(response);
    }
    let text = response.text().await.map_err(no_answer)?;
    let problem = serde_json::from_str(&text).unwrap_or_else(|_| unknown(status, text));
    Err(PeerError::Refused { url, status, problem: Box::new(problem) })
}

/// A refusal that isn't a problem, as from something between the services.
fn unknown(status: StatusCode, detail: String) -> ProblemDetails {
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
