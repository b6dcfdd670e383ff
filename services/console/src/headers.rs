//! Which headers go through the door.
//!
//! The problem: some headers speak of one connection only, and some would be believed by the services.
//!
//! The invariant: hop-by-hop headers (RFC 9110 §7.6.1) stay on their side; nothing named `x-catacloud-…` and no credential
//! comes in from outside.

use axum::http::{
    HeaderMap, HeaderName,
    header::{
        AUTHORIZATION, CONNECTION, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
        TRANSFER_ENCODING, UPGRADE,
    },
};

/// How the headers begin that the services believe.
const OWN_PREFIX: &str = "x-catacloud-";

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

/// Prepares a request's headers for the service, which has yet to be told who asks.
pub(crate) fn clean_request(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    // The door has read the credential and has answered the expectation; the host is the service's own.
    for name in [AUTHORIZATION, EXPECT, HOST] {
        headers.remove(name);
    }
    let own: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with(OWN_PREFIX)).cloned().collect();
    for name in own {
        headers.remove(name);
    }
}

/// Prepares a response's headers for the client.
pub(crate) fn clean_response(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let mut named = Vec::new();
    for value in headers.get_all(CONNECTION) {
        let Ok(value) = value.to_str() else { continue };
        named.extend(value.split(',').filter_map(|name| name.trim().parse::<HeaderName>().ok()));
    }
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderName, HeaderValue};

    use super::{clean_request, clean_response};

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
    fn nothing_of_the_connection_goes_on() {
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
        clean_response(&mut response);
        assert_eq!(names(&response), ["content-length", "etag"]);
        let mut request = headers(&pairs);
        clean_request(&mut request);
        assert_eq!(names(&request), ["content-length", "etag"]);
    }

    #[test]
    fn nothing_from_outside_is_believed() {
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
        clean_request(&mut request);
        assert_eq!(names(&request), ["tus-resumable"]);
    }
}
