//! Extractors for JSON bodies, query strings and paths that respond with a [`Problem`] on bad input.
//!
//! Malformed input is 400. Well-formed input of the wrong shape is 422 with a JSON pointer. A body that is too large is 413,
//! and a body without a JSON `Content-Type` is 415. Request types should declare `#[serde(deny_unknown_fields)]`, so that
//! unknown fields are refused too.

use std::error::Error;

use axum::{
    Json,
    extract::{
        FromRequest, FromRequestParts, Path, Query, Request,
        rejection::{JsonDataError, JsonRejection, PathRejection, QueryRejection},
    },
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// A JSON request body.
#[derive(Debug, Clone, Copy)]
pub struct ApiJson<T>(pub T);

/// The query string.
#[derive(Debug, Clone, Copy)]
pub struct ApiQuery<T>(pub T);

/// The parameters in the path.
#[derive(Debug, Clone, Copy)]
pub struct ApiPath<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for ApiJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let Json(body) = Json::from_request(request, state).await?;
        Ok(Self(body))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let Query(query) = Query::from_request_parts(parts, state).await?;
        Ok(Self(query))
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for ApiPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let Path(path) = Path::from_request_parts(parts, state).await?;
        Ok(Self(path))
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        match rejection {
            JsonRejection::JsonDataError(error) => wrong_shape(&error),
            JsonRejection::JsonSyntaxError(error) => {
                Problem::bad_request(innermost(&error)).of_kind("/problems/malformed-json", "malformed JSON")
            }
            JsonRejection::MissingJsonContentType(_) => {
                Problem::unsupported_media_type("the body must be JSON, with Content-Type: application/json")
            }
            JsonRejection::BytesRejection(rejection) => unreadable_body(rejection.status(), rejection.body_text()),
            other => unreadable_body(other.status(), other.body_text()),
        }
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Problem::bad_request(innermost(&rejection)).of_kind("/problems/malformed-query", "malformed query string")
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        if rejection.status().is_server_error() {
            return Problem::internal(rejection.body_text());
        }
        Problem::bad_request(innermost(&rejection)).of_kind("/problems/malformed-path", "malformed path")
    }
}

/// Returns the problem for a body that could not be read to its end.
pub(crate) fn unreadable_body(status: StatusCode, detail: String) -> Problem {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::payload_too_large("the body is larger than this resource accepts"),
        status if status.is_server_error() => Problem::internal(detail),
        _ => Problem::bad_request(detail),
    }
}

/// Returns the 422 for JSON of the wrong shape. The cause's text is `<path>: <message> at line <l> column <c>`.
fn wrong_shape(error: &JsonDataError) -> Problem {
    let text = innermost(error);
    let problem = Problem::unprocessable(text.clone());
    let Some((path, message)) = text.split_once(": ") else { return problem };
    match pointer(path) {
        Some(pointer) => problem.at(pointer, message),
        None => problem.at("", text),
    }
}

/// Converts a path like `parts[3].name` to a JSON pointer. Returns `None` for text of another form.
fn pointer(path: &str) -> Option<String> {
    let is_plain =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let parts: Vec<&str> = path.split(['.', '[']).map(|part| part.trim_end_matches(']')).collect();
    parts.iter().all(|part| is_plain(part)).then(|| parts.iter().map(|part| format!("/{part}")).collect())
}

/// Returns the innermost cause. The outer causes only repeat that an axum extractor failed.
fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use axum::Json;
    use serde::Deserialize;

    use super::pointer;
    use crate::problem::{FieldError, Problem, ProblemDetails};

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        #[expect(dead_code, reason = "only its type matters")]
        parts: Vec<Part>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Part {
        #[expect(dead_code, reason = "only its type matters")]
        name: String,
    }

    fn status_and_errors(json: &str) -> (u16, Vec<FieldError>) {
        let details = ProblemDetails::from(Problem::from(Json::<Body>::from_bytes(json.as_bytes()).unwrap_err()));
        (details.status, details.errors.unwrap_or_default())
    }

    #[test]
    fn wrong_shape_is_422_with_a_pointer() {
        let cases = [
            (r#"{"parts":[{"name":"a"},{"name":2}]}"#, "/parts/1/name", "invalid type: integer `2`, expected a string"),
            (r#"{"parts":[{"name":"a","size":2}]}"#, "/parts/0/size", "unknown field `size`, expected `name`"),
            (r#"{"parts":3}"#, "/parts", "invalid type: integer `3`, expected a sequence"),
        ];
        for (json, pointer, detail) in cases {
            let (status, errors) = status_and_errors(json);
            assert_eq!(status, 422);
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert_eq!(errors[0].pointer, pointer);
            assert!(errors[0].detail.starts_with(detail), "{}", errors[0].detail);
        }
    }

    #[test]
    fn missing_field_is_422_and_bad_syntax_is_400() {
        assert_eq!(status_and_errors("{}").0, 422);
        assert_eq!(status_and_errors("[]").0, 422);
        for malformed in ["", "{", "{\"parts\":[]} x", "nope", "{'parts':[]}"] {
            assert_eq!(status_and_errors(malformed).0, 400, "{malformed}");
        }
    }

    #[test]
    fn deeply_nested_json_is_refused() {
        let deep = format!("{{\"parts\":{}", "[".repeat(100_000));
        assert!((400..500).contains(&status_and_errors(&deep).0));
    }

    #[test]
    fn pointer_is_none_for_text_that_is_no_path() {
        assert_eq!(pointer("a.b[0].c-d").as_deref(), Some("/a/b/0/c-d"));
        assert_eq!(pointer("a[0][1]").as_deref(), Some("/a/0/1"));
        assert_eq!(pointer("missing field `a`"), None);
        assert_eq!(pointer("?"), None);
        assert_eq!(pointer("a..b"), None);
    }
}
