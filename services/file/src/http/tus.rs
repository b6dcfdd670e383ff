//! The words of tus 1.0.0 (<https://tus.io/protocols/resumable-upload>): what its headers say.
//!
//! The problem: uploads are resumed by many clients that know only the protocol.
//!
//! The invariant: nothing is done for a request of another version of the protocol, and every answer says the version; a header
//! that can't be read is 400, never guessed. The extensions are creation, creation-with-upload and termination.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use service_kit::Problem;
use uuid::Uuid;

const VERSION: HeaderValue = HeaderValue::from_static("1.0.0");
const EXTENSIONS: HeaderValue = HeaderValue::from_static("creation,creation-with-upload,termination");

const RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const SUPPORTED: HeaderName = HeaderName::from_static("tus-version");
const EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
const MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
pub(crate) const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
pub(crate) const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
pub(crate) const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");

/// What would change the meaning of a request if it were ignored.
const UNSUPPORTED: [HeaderName; 3] = [
    HeaderName::from_static("upload-defer-length"),
    HeaderName::from_static("upload-concat"),
    HeaderName::from_static("upload-checksum"),
];

const OFFSET_OCTET_STREAM: &str = "application/offset+octet-stream";

const MAX_METADATA_BYTES: usize = 8 * 1024;

/// Middleware: refuses other versions of the protocol, and says ours in every answer.
pub(crate) async fn speak(request: Request, next: Next) -> Response {
    let speaks = request.method() == Method::OPTIONS || request.headers().get(RESUMABLE) == Some(&VERSION);
    let mut response = if speaks { next.run(request).await } else { other_version() };
    response.headers_mut().insert(RESUMABLE, VERSION);
    response
}

fn other_version() -> Response {
    let detail = "send Tus-Resumable: 1.0.0, the version of the protocol that is spoken here";
    let problem =
        Problem::new(StatusCode::PRECONDITION_FAILED, "/problems/tus-version", "other version of tus", detail);
    ([(SUPPORTED, VERSION)], problem).into_response()
}

/// What is offered, to whoever asks.
pub(crate) fn offer(max_bytes: u64) -> Response {
    let max_size = HeaderValue::from(max_bytes);
    (StatusCode::NO_CONTENT, [(SUPPORTED, VERSION), (EXTENSION, EXTENSIONS), (MAX_SIZE, max_size)]).into_response()
}

/// Refuses what would be misunderstood if it were ignored.
pub(crate) fn refuse_unsupported(headers: &HeaderMap) -> Result<(), Problem> {
    for name in &UNSUPPORTED {
        if headers.contains_key(name) {
            return Err(Problem::bad_request(format!("{name} is not supported; see Tus-Extension"))
                .of_kind("/problems/tus-extension", "extension of tus not supported"));
        }
    }
    Ok(())
}

/// A number that must be there. What is too large for a number is too large for a file as well.
pub(crate) fn number(headers: &HeaderMap, name: &HeaderName) -> Result<u64, Problem> {
    let text = text(headers, name)?.ok_or_else(|| Problem::bad_request(format!("header {name} is missing")))?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed(name, "it must be a number of bytes"));
    }
    Ok(text.parse().unwrap_or(u64::MAX))
}

/// How many bytes the body has at least. Read from the header, since the body itself has lost it in the layers above.
pub(crate) fn body_bytes(headers: &HeaderMap) -> u64 {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    declared.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Whether the body is a piece of a file.
pub(crate) fn is_piece(headers: &HeaderMap) -> bool {
    let declared = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    declared.trim().eq_ignore_ascii_case(OFFSET_OCTET_STREAM)
}

/// 415.
pub(crate) fn not_a_piece() -> Problem {
    Problem::unsupported_media_type(format!("send the bytes with Content-Type: {OFFSET_OCTET_STREAM}"))
}

/// What `Upload-Metadata` says about a file. Other keys are the client's own, and aren't kept.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) filename: Option<String>,
    pub(crate) filetype: Option<String>,
    pub(crate) produced_by_job: Option<Uuid>,
}

impl Metadata {
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        match text(headers, &UPLOAD_METADATA)? {
            Some(text) => Self::parse(text).map_err(|detail| malformed(&UPLOAD_METADATA, &detail)),
            None => Ok(Self::default()),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_METADATA_BYTES {
            return Err(format!("it has more than {MAX_METADATA_BYTES} bytes"));
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
                return Err("each key must be there once, and not be empty".to_owned());
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

    /// The header for a file of this name and type.
    pub(crate) fn header(filename: &str, filetype: &str) -> String {
        format!("filename {},filetype {}", STANDARD.encode(filename), STANDARD.encode(filetype))
    }
}

/// A header's text. Sent twice it is refused: which one is meant can't be known.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| malformed(name, "it must be visible ASCII")),
        _ => Err(malformed(name, "it was sent more than once")),
    }
}

fn malformed(name: &HeaderName, detail: &str) -> Problem {
    Problem::bad_request(format!("header {name} can't be read: {detail}"))
        .of_kind("/problems/tus-header", "malformed header of tus")
}

#[cfg(test)]
mod tests {
    use super::Metadata;

    #[test]
    fn reads_metadata() {
        let read = Metadata::parse("filename d29ybGQudHh0, filetype dGV4dC9wbGFpbg==,is_confidential,x YQ==").unwrap();
        assert_eq!(read.filename.as_deref(), Some("world.txt"));
        assert_eq!(read.filetype.as_deref(), Some("text/plain"));
        assert_eq!(read.produced_by_job, None);
        assert_eq!(Metadata::parse("").unwrap(), Metadata::default());
        assert_eq!(Metadata::parse("filename").unwrap().filename.as_deref(), Some(""));
        let written = Metadata::header("größe, 1.txt", "text/plain");
        assert_eq!(Metadata::parse(&written).unwrap().filename.as_deref(), Some("größe, 1.txt"));
    }

    #[test]
    fn refuses_metadata_that_can_be_read_in_several_ways() {
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
            assert!(Metadata::parse(text).is_err(), "{text}");
        }
        assert!(Metadata::parse(&format!("x {}", "YWFh".repeat(4096))).is_err());
    }
}
