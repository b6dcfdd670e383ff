//! A file's bytes.
//!
//! The problem: files are larger than memory, and downloads break off as uploads do.
//!
//! The invariant: what is sent is exactly what was uploaded, or a range of it, straight from the parts; a browser saves
//! it and never takes it for a page of ours.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use epoch::cache::Loaded;
use service_kit::{ApiPath, Caller, Problem, Role};
use uuid::Uuid;

use super::{Api, problem};
use crate::domain::{
    file::Status,
    range::{Wanted, slices, wanted},
};

/// The bytes of a complete file, or a range of them.
#[utoipa::path(
    get, path = "/api/v1/organizations/{org}/files/{file}/content", tag = "files", operation_id = "get_file_content",
    params(
        ("org" = Uuid, Path, description = "the organization"),
        ("file" = Uuid, Path, description = "the file"),
        ("Range" = Option<String>, Header, description = "one range, as in bytes=0-99, bytes=100- or bytes=-100"),
        ("If-Range" = Option<String>, Header, description = "the ETag of what the range is to continue"),
    ),
    responses(
        (status = 200, description = "all bytes", content_type = "application/octet-stream"),
        (status = 206, description = "the range", content_type = "application/octet-stream"),
        (status = 404, body = Problem), (status = 416, body = Problem),
    )
)]
pub(super) async fn read(
    State(api): State<Api>,
    ApiPath((organization, id)): ApiPath<(Uuid, Uuid)>,
    caller: Caller,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Loaded { state: file, .. } = api.existing_file(&caller, organization, Role::Viewer, id).await?;
    if file.status != Status::Complete {
        return Err(problem::no_file(id));
    }
    let length = file.received;
    // A file never changes, so its id is all that tells contents apart.
    let etag = format!("\"{id}\"");
    let (status, range) = match requested(&method, &headers, &etag, length) {
        Wanted::Whole => (StatusCode::OK, 0..length),
        Wanted::Range(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Unsatisfiable => return Ok(unsatisfiable(length)),
    };
    let mut answer = HeaderMap::new();
    let mut say = |name, value: String| -> Result<(), Problem> {
        answer.insert(name, HeaderValue::try_from(value).map_err(Problem::internal)?);
        Ok(())
    };
    say(header::CONTENT_TYPE, file.content_type.clone())?;
    say(header::CONTENT_LENGTH, (range.end - range.start).to_string())?;
    say(header::CONTENT_DISPOSITION, attachment(&file.name))?;
    say(header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned())?;
    say(header::ACCEPT_RANGES, "bytes".to_owned())?;
    say(header::ETAG, etag)?;
    if status == StatusCode::PARTIAL_CONTENT {
        say(header::CONTENT_RANGE, format!("bytes {}-{}/{length}", range.start, range.end - 1))?;
    }
    let body = Body::from_stream(api.parts.read(id, slices(&file.parts, range)));
    Ok((status, answer, body).into_response())
}

/// What is asked for. Ranges are for GET only, and only of what the client has seen before.
fn requested(method: &Method, headers: &HeaderMap, etag: &str, length: u64) -> Wanted {
    let of_another = headers.get(header::IF_RANGE).is_some_and(|seen| seen.as_bytes() != etag.as_bytes());
    match headers.get(header::RANGE).and_then(|range| range.to_str().ok()) {
        Some(range) if method == Method::GET && !of_another => wanted(range, length),
        _ => Wanted::Whole,
    }
}

fn unsatisfiable(length: u64) -> Response {
    let detail = format!("the file has {length} bytes, and none of them in this range");
    let status = StatusCode::RANGE_NOT_SATISFIABLE;
    let problem = Problem::new(status, "/problems/range-not-satisfiable", "range not satisfiable", detail);
    ([(header::CONTENT_RANGE, format!("bytes */{length}"))], problem).into_response()
}

/// RFC 6266: a name for clients that know ASCII only, and the real one.
fn attachment(name: &str) -> String {
    let plain: String = name.chars().map(|char| if is_plain(char) { char } else { '_' }).collect();
    let mut exact = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            exact.push(char::from(byte));
        } else {
            exact.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}")
}

/// What means itself between quotes; `%` is decoded by some clients.
fn is_plain(char: char) -> bool {
    (char == ' ' || char.is_ascii_graphic()) && !matches!(char, '"' | '\\' | '%')
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, Method, header};

    use super::{Wanted, attachment, requested};

    #[test]
    fn names_are_quoted_and_exact() {
        assert_eq!(attachment("a b.csv"), "attachment; filename=\"a b.csv\"; filename*=UTF-8''a%20b.csv");
        assert_eq!(
            attachment("Größe\"50%\".csv"),
            "attachment; filename=\"Gr__e_50__.csv\"; filename*=UTF-8''Gr%C3%B6%C3%9Fe%2250%25%22.csv"
        );
        assert_eq!(attachment("a;b'c"), "attachment; filename=\"a;b'c\"; filename*=UTF-8''a%3Bb%27c");
    }

    #[test]
    fn a_range_continues_only_what_was_seen() {
        let asked = |method, if_range: Option<&'static str>| {
            let mut headers = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static("bytes=1-2"))]);
            headers.extend(if_range.map(|seen| (header::IF_RANGE, HeaderValue::from_static(seen))));
            requested(&method, &headers, "\"a\"", 10)
        };
        assert_eq!(asked(Method::GET, None), Wanted::Range(1..3));
        assert_eq!(asked(Method::GET, Some("\"a\"")), Wanted::Range(1..3));
        assert_eq!(asked(Method::GET, Some("\"b\"")), Wanted::Whole);
        assert_eq!(asked(Method::HEAD, None), Wanted::Whole);
    }
}
