//! Forwarding of one request to a service.
//!
//! A forwarded request has an authenticated caller, no client header that a service would trust, and exactly the
//! matched path. A response must start within [`RESPONSE_TIMEOUT`], except for an upload with a body of any length.

use std::time::Duration;

use axum::{
    body::HttpBody,
    extract::Request,
    http::Method,
    response::{IntoResponse, Response},
};
use http_kit::{Caller, Problem};

use crate::{
    gateway::Gateway,
    headers::{insert_traceparent, strip_request_headers, strip_response_headers},
    upstream::Upstream,
    upstreams::Upstreams,
};

/// Longer than the services' own timeout, so that the client receives the response of the service.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(40);

/// Service and kind of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RouteTarget {
    Organization,
    Job,
    /// Uploads of the file service: bodies of any length, and capability requests without a key.
    Upload,
    File,
    Billing,
}

impl RouteTarget {
    fn upstream(self, upstreams: &Upstreams) -> &Upstream {
        match self {
            RouteTarget::Organization => &upstreams.organization,
            RouteTarget::Job => &upstreams.job,
            RouteTarget::Upload | RouteTarget::File => &upstreams.file,
            RouteTarget::Billing => &upstreams.billing,
        }
    }
}

/// Authenticates a request, forwards it, and returns the response of the service or a problem.
pub(crate) async fn forward(gateway: &Gateway, target: RouteTarget, mut request: Request) -> Response {
    if let Err(problem) = authenticate(gateway, target, &mut request).await {
        return problem.into_response();
    }
    let upstream = target.upstream(&gateway.upstreams);
    let is_upload_body = target == RouteTarget::Upload && !request.body().is_end_stream();
    let result = match is_upload_body {
        true => upstream.send(request).await,
        false => upstream.send_within(RESPONSE_TIMEOUT, request).await,
    };
    match result {
        Ok(mut response) => {
            strip_response_headers(response.headers_mut());
            response
        }
        Err(error) => Problem::from(error).into_response(),
    }
}

/// Replaces the client's credential and internal headers by those of the authenticated caller.
async fn authenticate(gateway: &Gateway, target: RouteTarget, request: &mut Request) -> Result<(), Problem> {
    // A tus client asks for the capabilities before it has a key. The response is the same for every client.
    let is_capability_request = target == RouteTarget::Upload && request.method() == Method::OPTIONS;
    let caller = match is_capability_request {
        true => None,
        false => Some(gateway.authenticator.authenticate(request.headers()).await?),
    };
    let headers = request.headers_mut();
    strip_request_headers(headers);
    if let Some(caller) = caller {
        Caller::write_to(&caller, headers, &gateway.secrets).map_err(Problem::internal)?;
    }
    insert_traceparent(headers);
    Ok(())
}
