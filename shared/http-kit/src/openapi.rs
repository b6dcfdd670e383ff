//! OpenAPI declarations of responses.

use std::collections::BTreeMap;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{Content, ContentBuilder, HeaderBuilder, Ref, RefOr, Response, ResponseBuilder, header::Header},
};

use crate::problem::{MEDIA_TYPE, Problem};

/// Responses by status code, as [`IntoResponses`](utoipa::IntoResponses) returns them.
pub type Responses = BTreeMap<String, RefOr<Response>>;

/// Declares problem responses by status code and description, with the headers that every problem of that status has.
#[must_use]
pub fn problem_responses(problems: &[(u16, &str)]) -> Responses {
    problems.iter().map(|(status, description)| (status.to_string(), problem(*status, description).into())).collect()
}

fn problem(status: u16, description: &str) -> Response {
    let response = ResponseBuilder::new().description(description).content(MEDIA_TYPE, content_of::<Problem>());
    match status {
        401 => response.header("WWW-Authenticate", text_header("Always `Bearer`.")),
        429 | 503 => response.header("Retry-After", text_header("Seconds to wait before a retry, for example `1`.")),
        _ => response,
    }
    .build()
}

/// Declares a body by a reference to the schema of `T`.
#[must_use]
pub fn content_of<T: ToSchema>() -> Content {
    ContentBuilder::new().schema(Some(Ref::from_schema_name(T::name()))).build()
}

/// Declares a header whose value is a string.
#[must_use]
pub fn text_header(description: &str) -> Header {
    HeaderBuilder::new().schema(Some(String::schema())).description(Some(description)).build()
}
