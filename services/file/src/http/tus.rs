//! Headers of tus 1.0.0 (<https://tus.io/protocols/resumable-upload>).
//!
//! Generic tus clients resume uploads, so the implementation is strict: a request of another protocol version changes
//! nothing, every response names the version, and a malformed header is 400. Supported extensions: creation,
//! creation-with-upload and termination.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http_kit::Problem;
use uuid::Uuid;

const VERSION: HeaderValue = HeaderValue::from_static("1.0.0");
const EXTENSIONS: HeaderValue = HeaderValue::from_static("creation,creation-with-upload,termination");

const RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const SUPPORTED: HeaderName = HeaderName::from_static("tus-version");
const EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
const MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
pub(super) const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
pub(super) const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
pub(super) const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");

/// Headers of unsupported extensions. Ignoring one would change the meaning of the request.
const UNSUPPORTED: [HeaderName; 3] = [
    HeaderName::from_static("upload-defer-length"),
    HeaderName::from_static("upload-concat"),
    HeaderName::from_static("upload-checksum"),
];

const OFFSET_OCTET_STREAM: &str = "application/offset+octet-stream";

const MAX_METADATA_BYTES: usize = 8 * 1024;

/// Middleware that rejects other versions of the protocol and adds `Tus-Resumable` to every response.
pub(super) async fn negotiate_version(request: Request, next: Next) -> Response {
    let is_supported = request.method() == Method::OPTIONS || request.headers().get(RESUMABLE) == Some(&VERSION);
    let mut response = if is_supported { next.run(request).await } else { unsupported_version() };
    response.headers_mut().insert(RESUMABLE, VERSION);
    response
}

fn unsupported_version() -> Response {
    let detail = "Tus-Resumable must be 1.0.0, the only supported version";
    let problem =
        Problem::new(StatusCode::PRECONDITION_FAILED, "/problems/tus-version", "unsupported version of tus", detail);
    ([(SUPPORTED, VERSION)], problem).into_response()
}

/// Returns the supported version, extensions and maximum size.
pub(super) fn capabilities(max_bytes: u64) -> Response {
    let max_size = HeaderValue::from(max_bytes);
    (StatusCode::NO_CONTENT, [(SUPPORTED, VERSION), (EXTENSION, EXTENSIONS), (MAX_SIZE, max_size)]).into_response()
}

/// Rejects headers of unsupported extensions.
pub(super) fn reject_unsupported(headers: &HeaderMap) -> Result<(), Problem> {
    for name in &UNSUPPORTED {
        if headers.contains_key(name) {
            return Err(Problem::bad_request(format!(
                "header {name} is not supported; Tus-Extension lists the supported extensions"
            ))
            .of_kind("/problems/tus-extension", "unsupported extension of tus"));
        }
    }
    Ok(())
}

/// Parses a required number of bytes. A number above 64 bits becomes the maximum, which is larger than any file.
pub(super) fn parse_number(headers: &HeaderMap, name: &HeaderName) -> Result<u64, Problem> {
    let text = single_value(headers, name)?.ok_or_else(|| Problem::bad_request(format!("header {name} is missing")))?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed(name, "expected a number of bytes"));
    }
    Ok(text.parse().unwrap_or(u64::MAX))
}

/// Returns the `Content-Length`, or 0 without one. The body itself has lost its size in outer layers.
pub(super) fn content_length(headers: &HeaderMap) -> u64 {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    declared.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Returns whether the body is file content, by its `Content-Type`.
pub(super) fn has_content_body(headers: &HeaderMap) -> bool {
    let declared = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    declared.trim().eq_ignore_ascii_case(OFFSET_OCTET_STREAM)
}

/// Returns the 415 for a body of another type.
pub(super) fn unsupported_body_type() -> Problem {
    Problem::unsupported_media_type(format!("Content-Type must be {OFFSET_OCTET_STREAM}"))
}

/// Known keys of `Upload-Metadata`. Other keys are ignored.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct UploadMetadata {
    pub(super) filename: Option<String>,
    pub(super) filetype: Option<String>,
    pub(super) produced_by_job: Option<Uuid>,
}

impl UploadMetadata {
    pub(super) fn from_headers(headers: &HeaderMap) -> Result<Self, Problem> {
        match single_value(headers, &UPLOAD_METADATA)? {
            Some(text) => Self::parse(text).map_err(|detail| malformed(&UPLOAD_METADATA, &detail)),
            None => Ok(Self::default()),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_METADATA_BYTES {
            return Err(format!("longer than {MAX_METADATA_BYTES} bytes"));
        }
        let mut metadata = Self::default();
        let mut keys = Vec::new();
        if text.is_empty() {
            return Ok(metadata);
        }
        for pair in text.split(',') {
            let pair = pair.trim();
            let (key, value) = pair.split_once(' ').unwrap_or((pair, ""));
            if key.is_empty() || keys.contains(&key) {
                return Err("a key is empty or repeated".to_owned());
            }
            keys.push(key);
            let value = STANDARD.decode(value).map_err(|_| format!("the value of {key} is not base64"))?;
            let value = || String::from_utf8(value).map_err(|_| format!("the value of {key} is not UTF-8"));
            match key {
                "filename" => metadata.filename = Some(value()?),
                "filetype" => metadata.filetype = Some(value()?),
                "produced_by_job" => {
                    let job = value()?.parse().map_err(|_| "produced_by_job is not an id".to_owned())?;
                    metadata.produced_by_job = Some(job);
                }
                _ => {}
            }
        }
        Ok(metadata)
    }

    /// Returns the header value for a file name and a media type.
    pub(super) fn header_value(filename: &str, filetype: &str) -> String {
        format!("filename {},filetype {}", STANDARD.encode(filename), STANDARD.encode(filetype))
    }
}

/// Returns the value of a header, and rejects a repeated header, whose values could contradict each other.
fn single_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            value.to_str().map(Some).map_err(|_| malformed(name, "expected visible ASCII characters"))
        }
        _ => Err(malformed(name, "sent more than once")),
    }
}

fn malformed(name: &HeaderName, detail: &str) -> Problem {
    Problem::bad_request(format!("header {name} is malformed: {detail}"))
        .of_kind("/problems/tus-header", "malformed tus header")
}

#[cfg(test)]
mod tests {
    use super::UploadMetadata;

    #[test]
    fn parse_reads_known_keys() {
        let read =
            UploadMetadata::parse("filename d29ybGQudHh0, filetype dGV4dC9wbGFpbg==,is_confidential,x YQ==").unwrap();
        assert_eq!(read.filename.as_deref(), Some("world.txt"));
        assert_eq!(read.filetype.as_deref(), Some("text/plain"));
        assert_eq!(read.produced_by_job, None);
        assert_eq!(UploadMetadata::parse("").unwrap(), UploadMetadata::default());
        assert_eq!(UploadMetadata::parse("filename").unwrap().filename.as_deref(), Some(""));
        let written = UploadMetadata::header_value("größe, 1.txt", "text/plain");
        assert_eq!(UploadMetadata::parse(&written).unwrap().filename.as_deref(), Some("größe, 1.txt"));
    }

    #[test]
    fn parse_rejects_ambiguous_metadata() {
        let wrong = [
            ",",
            "filename YQ==,",
            "filename YQ==,filename Yg==",
            "filename YQ",
            "filename YQ= =",
            "filename  YQ==",
            "filename !",
            "filename /w==",
            "filetype _w==",
            "produced_by_job YQ==",
        ];
        for text in wrong {
            assert!(UploadMetadata::parse(text).is_err(), "{text}");
        }
        assert!(UploadMetadata::parse(&format!("x {}", "YWFh".repeat(4096))).is_err());
    }
}
