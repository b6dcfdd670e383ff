//! `/api/v1/organizations/{org}/files/{file}/content`
//!
//! The response streams the parts of the file, so a file may be larger than memory. The headers make a browser save the
//! content instead of showing it as a page of this site.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use epoch::VersionedState;
use http_kit::{ApiPath, Caller, Problem, Role};

use super::{
    parameters::{FileBytes, FilePath},
    problem::{ReadProblems, file_not_found},
    state::HttpState,
};
use crate::domain::{
    file::Status,
    range::{RequestedRange, parse_range, part_slices},
};

/// Download a file.
///
/// Returns the content of a completed file, or one byte range of it. A malformed `Range`, or several ranges at once,
/// return the whole content. Requires the role `viewer`.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/files/{file}/content", tag = "files",
    params(
        FilePath,
        ("Range" = Option<String>, Header, example = "bytes=0-99",
            description = "One byte range: `bytes=0-99`, `bytes=100-` or `bytes=-100`. Default: the whole content."),
        ("If-Range" = Option<String>, Header, example = "\"0198c0de-0000-7000-8000-000000000004\"",
            description = "`ETag` of the content that the range continues. Another content is returned as a whole."),
    ),
    responses(
        (status = 200, description = "The whole content.",
            content_type = "application/octet-stream", body = FileBytes, headers(
            ("ETag" = String, description = "Identifies the content, for `If-Range`."),
            ("Accept-Ranges" = String, description = "Always `bytes`."),
            ("Content-Disposition" = String, description = "Attachment with the file name (RFC 6266)."),
        )),
        (status = 206, description = "The requested range.",
            content_type = "application/octet-stream", body = FileBytes, headers(
            ("ETag" = String, description = "Identifies the content, for `If-Range`."),
            ("Content-Range" = String, description = "Range and size of the content, such as `bytes 0-99/1000`."),
            ("Content-Disposition" = String, description = "Attachment with the file name (RFC 6266)."),
        )),
        (status = 416, description = "The file has no byte in the range.",
            body = Problem, content_type = "application/problem+json", headers(
            ("Content-Range" = String, description = "Size of the content, such as `bytes */1000`."),
        )),
        ReadProblems,
    )
)]
pub(super) async fn get_file_content(
    State(state): State<HttpState>,
    ApiPath(FilePath { org, file: id }): ApiPath<FilePath>,
    caller: Caller,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let VersionedState { state: file, .. } = state.load_existing_file(&caller, org, Role::Viewer, id).await?;
    if file.status != Status::Complete {
        return Err(file_not_found(id));
    }
    let length = file.received;
    // A completed file never changes, so its id identifies the content.
    let etag = format!("\"{id}\"");
    let (status, range) = match requested_range(&method, &headers, &etag, length) {
        RequestedRange::Whole => (StatusCode::OK, 0..length),
        RequestedRange::Bytes(range) => (StatusCode::PARTIAL_CONTENT, range),
        RequestedRange::Unsatisfiable => return Ok(unsatisfiable(length)),
    };
    let mut response_headers = HeaderMap::new();
    let mut insert = |name: HeaderName, value: String| -> Result<(), Problem> {
        response_headers.insert(name, HeaderValue::try_from(value).map_err(Problem::internal)?);
        Ok(())
    };
    insert(header::CONTENT_TYPE, file.content_type.clone())?;
    insert(header::CONTENT_LENGTH, (range.end - range.start).to_string())?;
    insert(header::CONTENT_DISPOSITION, attachment(&file.name))?;
    insert(header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned())?;
    insert(header::ACCEPT_RANGES, "bytes".to_owned())?;
    insert(header::ETAG, etag)?;
    if status == StatusCode::PARTIAL_CONTENT {
        insert(header::CONTENT_RANGE, format!("bytes {}-{}/{length}", range.start, range.end - 1))?;
    }
    let body = Body::from_stream(state.parts.read(id, part_slices(&file.parts, range)));
    Ok((status, response_headers, body).into_response())
}

/// Returns the range of a request. A range counts for GET only, and only if `If-Range` is absent or matches the
/// content.
fn requested_range(method: &Method, headers: &HeaderMap, etag: &str, length: u64) -> RequestedRange {
    let of_other_content = headers.get(header::IF_RANGE).is_some_and(|value| value.as_bytes() != etag.as_bytes());
    match headers.get(header::RANGE).and_then(|range| range.to_str().ok()) {
        Some(range) if method == Method::GET && !of_other_content => parse_range(range, length),
        _ => RequestedRange::Whole,
    }
}

fn unsatisfiable(length: u64) -> Response {
    let detail = format!("the range has no byte of the file, which has {length} bytes");
    let status = StatusCode::RANGE_NOT_SATISFIABLE;
    let problem = Problem::new(status, "/problems/range-not-satisfiable", "range not satisfiable", detail);
    ([(header::CONTENT_RANGE, format!("bytes */{length}"))], problem).into_response()
}

/// Returns the `Content-Disposition` of RFC 6266: an ASCII name for old clients, and the exact name.
fn attachment(name: &str) -> String {
    let ascii: String = name.chars().map(|char| if is_quotable(char) { char } else { '_' }).collect();
    let mut exact = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            exact.push(char::from(byte));
        } else {
            exact.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''{exact}")
}

/// Returns whether a character may stand in a quoted file name. `%` may not, because some clients decode it.
fn is_quotable(char: char) -> bool {
    (char == ' ' || char.is_ascii_graphic()) && !matches!(char, '"' | '\\' | '%')
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, Method, header};

    use super::{RequestedRange, attachment, requested_range};

    #[test]
    fn attachment_has_ascii_and_exact_name() {
        assert_eq!(attachment("a b.csv"), "attachment; filename=\"a b.csv\"; filename*=UTF-8''a%20b.csv");
        assert_eq!(
            attachment("Größe\"50%\".csv"),
            "attachment; filename=\"Gr__e_50__.csv\"; filename*=UTF-8''Gr%C3%B6%C3%9Fe%2250%25%22.csv"
        );
        assert_eq!(attachment("a;b'c"), "attachment; filename=\"a;b'c\"; filename*=UTF-8''a%3Bb%27c");
    }

    #[test]
    fn range_needs_get_and_matching_if_range() {
        let range_of = |method, if_range: Option<&'static str>| {
            let mut headers = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static("bytes=1-2"))]);
            headers.extend(if_range.map(|value| (header::IF_RANGE, HeaderValue::from_static(value))));
            requested_range(&method, &headers, "\"a\"", 10)
        };
        assert_eq!(range_of(Method::GET, None), RequestedRange::Bytes(1..3));
        assert_eq!(range_of(Method::GET, Some("\"a\"")), RequestedRange::Bytes(1..3));
        assert_eq!(range_of(Method::GET, Some("\"b\"")), RequestedRange::Whole);
        assert_eq!(range_of(Method::HEAD, None), RequestedRange::Whole);
    }
}
