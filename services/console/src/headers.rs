//! Headers that the gateway removes from forwarded requests and responses.
//!
//! Hop-by-hop headers (RFC 9110 §7.6.1) belong to one connection. Services trust `x-catacloud-…` headers, so a client
//! must not send them. Services need no credential of a client.

use axum::http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        AUTHORIZATION, CONNECTION, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
        TRANSFER_ENCODING, UPGRADE,
    },
};
use http_kit::trace_context;

/// Prefix of the headers that services trust.
const INTERNAL_PREFIX: &str = "x-catacloud-";

const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Removes the headers of a request that must not reach a service.
pub(crate) fn strip_request_headers(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    // The gateway has read the credential and answered the expectation; the service has its own host.
    for name in [AUTHORIZATION, EXPECT, HOST] {
        headers.remove(name);
    }
    let internal: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with(INTERNAL_PREFIX)).cloned().collect();
    for name in internal {
        headers.remove(name);
    }
}

/// Removes the headers of a response that must not reach the client.
pub(crate) fn strip_response_headers(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
}

/// Continues the trace of the current span in the service that receives the headers.
pub(crate) fn insert_traceparent(headers: &mut HeaderMap) {
    let traceparent = trace_context::traceparent_of_current_span();
    if let Some(traceparent) = traceparent.and_then(|traceparent| HeaderValue::try_from(traceparent).ok()) {
        headers.insert("traceparent", traceparent);
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let mut listed = Vec::new();
    for value in headers.get_all(CONNECTION) {
        let Ok(value) = value.to_str() else { continue };
        listed.extend(value.split(',').filter_map(|name| name.trim().parse::<HeaderName>().ok()));
    }
    for name in listed.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderName, HeaderValue};

    use super::{strip_request_headers, strip_response_headers};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        headers.keys().map(HeaderName::as_str).collect()
    }

    #[test]
    fn hop_by_hop_headers_are_removed() {
        let pairs = [
            ("connection", "close, X-Trick"),
            ("connection", "x-other"),
            ("x-trick", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("content-length", "7"),
            ("etag", "\"1\""),
        ];
        let mut response = headers(&pairs);
        strip_response_headers(&mut response);
        assert_eq!(names(&response), ["content-length", "etag"]);
        let mut request = headers(&pairs);
        strip_request_headers(&mut request);
        assert_eq!(names(&request), ["content-length", "etag"]);
    }

    #[test]
    fn internal_headers_and_credentials_are_removed() {
        let mut request = headers(&[
            ("x-catacloud-internal", "1"),
            ("x-catacloud-internal", "2"),
            ("x-catacloud-role", "service"),
            ("x-catacloud-anything", "1"),
            ("authorization", "Bearer x"),
            ("expect", "100-continue"),
            ("host", "example.org"),
            ("tus-resumable", "1.0.0"),
        ]);
        strip_request_headers(&mut request);
        assert_eq!(names(&request), ["tus-resumable"]);
    }
}
